"""Drives one scenario to its end and tells how it went."""

from collections.abc import Callable
from dataclasses import dataclass

from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Category
from opendrivevla_ros.world.vehicle import EgoCommand

STEP_S = 0.1
WITHIN_LANE = (
    1.6  # metres that the ego's middle may be off the route: room to pass a parked car, not to leave the lane
)


@dataclass(frozen=True)
class Outcome:
    """How a drive ended. completion: share of the route, 0 to 1. collision: whom the ego touched, if anyone.

    off_road: a corner of the ego left the drivable area. most_lateral: metres that its middle was off the route.
    hardest_braking, most_lateral_acceleration: m/s^2, both positive.
    """

    completion: float
    in_time: bool
    time_s: float
    collision: Category | None
    off_road: bool
    most_lateral: float
    hardest_braking: float
    most_lateral_acceleration: float

    @property
    def passed(self) -> bool:
        """The route was driven to its end, in time, without a collision, and within the lane."""
        return self.in_time and self.collision is None and not self.off_road and self.most_lateral <= WITHIN_LANE


def drive(world: World, driver: Callable[[World], EgoCommand]) -> Outcome:
    """Lets `driver` drive until the goal, the time limit, or a collision."""
    scenario, collision, off_road = world.scenario, None, False
    most_lateral, braking, sideways = 0.0, 0.0, 0.0
    while not world.finished and world.time_ns < scenario.time_limit_s * 1e9 and collision is None:
        world.step(STEP_S, driver(world))
        collision = world.collision()
        off_road = off_road or world.off_road()
        most_lateral = max(most_lateral, abs(world.lateral))
        braking = max(braking, -world.ego.acceleration)
        sideways = max(sideways, abs(world.ego.speed * world.ego.yaw_rate))
    completion = (world.progress - scenario.start_s) / (scenario.goal_s - scenario.start_s)
    return Outcome(
        completion=min(max(completion, 0.0), 1.0),
        in_time=world.finished,
        time_s=world.time_ns * 1e-9,
        collision=collision.category if collision else None,
        off_road=off_road,
        most_lateral=most_lateral,
        hardest_braking=braking,
        most_lateral_acceleration=sideways,
    )
