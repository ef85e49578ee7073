"""A policy drives the world: it plans from what it sees twice a second, and a tracking controller follows the plan."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.world.outcome import Outcome, drive
from opendrivevla_ros.world.policy_driver import PolicyDriver
from opendrivevla_ros.world.scenario import Scenario
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Actor
from opendrivevla_ros.world.vehicle import EgoCommand


class Sight(Enum):
    """What becomes of the pictures on their way to the policy; the last two show whether it uses them."""

    SEEING = "seeing"
    BLACK = "black pictures"
    SHUFFLED = "shuffled cameras"  # every camera shows another's picture; the rig stays as it is


@dataclass(frozen=True)
class Trace:
    """What a picture of a drive needs.

    ego: [N + 1, 4] x, y, yaw of base_link in the world frame and metres along the route, every 0.1 s. actors: those
    at the end. plan: [N, 2] the last plan's points in the world frame; None where there was none.
    """

    ego: Array
    actors: tuple[Actor, ...]
    plan: Array | None


@dataclass(frozen=True)
class Drive:
    """A driven scenario; driver: its name. failures: how often no plan came, by reason. plan_seconds: of each call."""

    driver: str
    family: str
    seed: int
    outcome: Outcome
    trace: Trace
    plans: int = 0
    failures: tuple[tuple[str, int], ...] = ()
    plan_seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class AgainstExpert:
    """A drive beside the expert's of the same seed.

    share: metres that it has come along the route when the expert is at the goal, or where it ended before, over the
    expert's; metres_behind: their difference. seconds_behind: at the goal; None where the drive did not come to it.
    """

    share: float
    metres_behind: float
    seconds_behind: float | None

    @classmethod
    def of(cls, mine: Drive, expert: Drive) -> "AgainstExpert":
        start, goal = float(expert.trace.ego[0, 3]), float(expert.trace.ego[-1, 3])
        arrival = min(len(mine.trace.ego), len(expert.trace.ego)) - 1
        own = min(float(mine.trace.ego[arrival, 3]), goal) - start
        behind = mine.outcome.time_s - expert.outcome.time_s if mine.outcome.in_time else None
        return cls(share=max(0.0, own) / (goal - start), metres_behind=goal - start - own, seconds_behind=behind)


def drive_policy(
    name: str, policy: DrivingPolicy, scenario: Scenario, observe: Callable[[World], Observation]
) -> Drive:
    """Lets a policy drive a scenario; observe: what it is given of the world."""
    driver = PolicyDriver(policy, observe)
    result = drive_with(name, scenario, driver)
    return replace(
        result,
        trace=replace(result.trace, plan=driver.last_plan),
        plans=driver.plans,
        failures=tuple(sorted(driver.failures.items())),
        plan_seconds=tuple(driver.plan_seconds),
    )


def drive_with(name: str, scenario: Scenario, driver: Callable[[World], EgoCommand]) -> Drive:
    """Lets anyone drive a scenario, the expert for one."""
    world, places = World(scenario), []

    def place() -> tuple[float, float, float, float]:
        return world.ego.x, world.ego.y, world.ego.yaw, world.progress

    def recorded(now: World) -> EgoCommand:
        places.append(place())
        return driver(now)

    outcome = drive(world, recorded)
    trace = Trace(np.array([*places, place()]), world.state.actors, None)
    return Drive(name, scenario.family, scenario.seed, outcome, trace)


def seen_through(sight: Sight, observation: Observation, order: NDArray[np.intp]) -> Observation:
    """The observation as it comes through; order: whose picture each camera shows when they are shuffled.

    Nothing tells the policy: neither are black pictures called blank, nor is the observation called degraded.
    """
    if sight is Sight.SEEING:
        return observation
    if sight is Sight.BLACK:
        images = [np.zeros_like(frame.image) for frame in observation.frames]
    else:
        images = [observation.frames[index].image for index in order]
    frames = tuple(replace(frame, image=image) for frame, image in zip(observation.frames, images, strict=True))
    return replace(observation, frames=frames)


def shuffled_order(family: str, seed: int, cameras: int) -> NDArray[np.intp]:
    """A permutation of the cameras that leaves none in its place, the same for the whole of a scenario."""
    random = np.random.default_rng([zlib.crc32(family.encode()), seed, cameras])
    while True:
        order = random.permutation(cameras)
        if (order != np.arange(cameras)).all():
            return order
