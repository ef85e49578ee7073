"""Drives one scenario to its end and tells how it went."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from opendrivevla_ros.world.conflict import WITHIN_LANE, at_fault, time_to_collision
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Category, Ego
from opendrivevla_ros.world.vehicle import EgoCommand

STEP_S = 0.1
LOST_METRES = 15.0  # so far off its route an ego has gone another way, and is not followed further


class CommandResult(Enum):
    """What became of the navigation command at the junction, judged from where the ego ended."""

    CARRIED_OUT = "carried out"  # on the road that the route leaves the junction by
    ANOTHER_WAY = "another way"  # on any other, or off the road
    NOT_LEFT = "junction not left"  # still before or inside the junction


@dataclass(frozen=True)
class Outcome:
    """How a drive ended.

    completion: share of the route, 0 to 1. distance: metres driven. collision: whom the ego touched, if anyone;
    at_fault: by its own doing (see `conflict.at_fault`). off_road: a corner of the ego left the drivable area.
    most_lateral: metres that its middle was off the route. least_time_to_collision: seconds, infinite where it was
    never below 4 s. command: None without a junction. Comfort, all positive, m/s^2 and m/s^3: hardest_braking,
    hardest_acceleration and mean_acceleration lengthwise (the mean of the magnitude), most_ and
    mean_lateral_acceleration, most_ and mean_jerk lengthwise.
    """

    completion: float
    in_time: bool
    time_s: float
    distance: float
    collision: Category | None
    at_fault: bool
    off_road: bool
    most_lateral: float
    least_time_to_collision: float
    command: CommandResult | None
    hardest_braking: float
    hardest_acceleration: float
    mean_acceleration: float
    most_lateral_acceleration: float
    mean_lateral_acceleration: float
    most_jerk: float
    mean_jerk: float

    @property
    def out_of_lane(self) -> bool:
        """Whether the ego's middle was further off the route than passing within the lane takes."""
        return self.most_lateral > WITHIN_LANE

    @property
    def passed(self) -> bool:
        """The route was driven to its end, in time, without a collision, and within the lane."""
        return self.in_time and self.collision is None and not self.off_road and not self.out_of_lane


def drive(world: World, driver: Callable[[World], EgoCommand]) -> Outcome:
    """Lets `driver` drive until the goal, the time limit, a collision, or far off the route."""
    scenario, collision, fault, off_road = world.scenario, None, False, False
    most_lateral, nearest = 0.0, np.inf
    trail = [world.ego]
    while not world.finished and world.time_ns < scenario.time_limit_s * 1e9 and collision is None:
        world.step(STEP_S, driver(world))
        trail.append(world.ego)
        collision = world.collision()
        fault = collision is not None and at_fault(world, collision)
        off_road = off_road or world.off_road()
        most_lateral = max(most_lateral, abs(world.lateral))
        nearest = min(nearest, 0.0 if collision else time_to_collision(world))
        if abs(world.lateral) > LOST_METRES:
            break
    completion = (world.progress - scenario.start_s) / (scenario.goal_s - scenario.start_s)
    return Outcome(
        completion=min(max(completion, 0.0), 1.0),
        in_time=world.finished,
        time_s=world.time_ns * 1e-9,
        collision=collision.category if collision else None,
        at_fault=fault,
        off_road=off_road,
        most_lateral=most_lateral,
        least_time_to_collision=nearest,
        command=command_result(world),
        **_motion(trail),
    )


def command_result(world: World) -> CommandResult | None:
    """What has become of the command of the route's junction by now; None for a route without one."""
    scenario = world.scenario
    route, lanes = scenario.route, scenario.road.lanes
    if route.junction is None:
        return None
    centre = [world.ego.centre]
    lane = lanes[scenario.queries.nearest_lane(centre).lane[0]]
    if abs(world.lateral) > LOST_METRES or not scenario.queries.on_road(centre)[0]:
        return CommandResult.ANOTHER_WAY
    if lane.in_junction or lane.road == lanes[route.lanes[0]].road:
        return CommandResult.NOT_LEFT
    right = lane.road == lanes[route.lanes[-1]].road
    return CommandResult.CARRIED_OUT if right else CommandResult.ANOTHER_WAY


def _motion(trail: Sequence[Ego]) -> dict[str, float]:
    """Distance and comfort of egos a step apart; the first has done nothing yet."""
    lengthwise = np.array([ego.acceleration for ego in trail])
    sideways = np.abs([ego.speed * ego.yaw_rate for ego in trail[1:]])
    jerk = np.abs(np.diff(lengthwise)) / STEP_S
    places = np.array([(ego.x, ego.y) for ego in trail])
    return {
        "distance": float(np.hypot(*np.diff(places, axis=0).T).sum()),
        "hardest_braking": float(max(0.0, -lengthwise.min())),
        "hardest_acceleration": float(max(0.0, lengthwise.max())),
        "mean_acceleration": float(np.abs(lengthwise[1:]).mean()),
        "most_lateral_acceleration": float(sideways.max()),
        "mean_lateral_acceleration": float(sideways.mean()),
        "most_jerk": float(jerk.max()),
        "mean_jerk": float(jerk.mean()),
    }
