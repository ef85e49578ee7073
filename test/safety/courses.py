"""Plans, road users and a vehicle for the tests of safety."""

import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.plan_checks import Check, Limits
from opendrivevla_ros.safety.road_users import Body, Movers

TIMES = np.arange(1, 7) * 0.5
BODY = Body(front=3.4, rear=0.7, half_width=0.925)
LIMITS = Limits()


def course(xy: Array, speed: float, age: float = 0.0) -> Course:
    """A plan through points [6, 2], seen from where it began."""
    return Course.seen_from(Trajectory.from_waypoints(TIMES, xy, speed), np.eye(4), age)


def straight(speed: float, acceleration: float = 0.0) -> Array:
    return np.column_stack([speed * TIMES + acceleration * TIMES**2 / 2, np.zeros(6)])


def standing(x: float, y: float, yaw: float = 0.0) -> Movers:
    """One car that stands there."""
    return Movers(np.array([[x, y, yaw, 4.5, 1.9]]), np.zeros((1, 2)), np.zeros(0), np.zeros((1, 0, 2)))


def failed(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if not check.ok]
