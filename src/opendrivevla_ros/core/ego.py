"""The vehicle's own motion at one instant, and the navigation command it follows."""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from opendrivevla_ros.core.geometry import Array

HISTORY_STEP_NS = 500_000_000
HISTORY_POINTS = 4
WHEELBASE = 2.588  # metres, of the nuScenes cars (Renault Zoe)
STEERING_SPEED = 0.5  # m/s, below which a yaw rate says nothing about the wheels


@dataclass(frozen=True)
class EgoState:
    """Ego motion at `stamp_ns`.

    base_to_world: [4, 4], pose of base_link in the odometry's fixed frame `world_frame`.
    velocity, acceleration: [3] in base_link, m/s and m/s^2 (signed: braking is negative x; without gravity).
    angular_velocity: [3] in base_link, rad/s.
    history: [4, 3] (x, y, yaw) of base_link 2.0, 1.5, 1.0 and 0.5 s ago, in base_link at `stamp_ns`.
    history_observed: how many of those four were measured; earlier ones continue the first step backwards.
    steering: steering angle at the front wheels, radians, positive left; where the vehicle does not tell, that of
        `kinematic_steering`.
    """

    stamp_ns: int
    base_to_world: Array
    velocity: Array
    acceleration: Array
    angular_velocity: Array
    history: Array
    history_observed: int = HISTORY_POINTS
    steering: float = 0.0
    world_frame: str = "odom"

    @property
    def speed(self) -> float:
        """Signed longitudinal speed, m/s."""
        return float(self.velocity[0])

    @property
    def is_finite(self) -> bool:
        arrays = (self.base_to_world, self.velocity, self.acceleration, self.angular_velocity, self.history)
        return all(bool(np.isfinite(array).all()) for array in arrays)


def kinematic_steering(speed: float, yaw_rate: float) -> float:
    """The steering angle, rad, with which a nuScenes car turns so at this speed (kinematic bicycle); 0 at a stop."""
    return math.atan(WHEELBASE * yaw_rate / speed) if abs(speed) >= STEERING_SPEED else 0.0


class Command(Enum):
    """Where the route goes next; the values are those of msg/DrivingCommand."""

    KEEP_FORWARD = 0
    TURN_LEFT = 1
    TURN_RIGHT = 2


@dataclass(frozen=True)
class DrivingCommand:
    """A command with optional free text. `is_default`: none was received in time, so this one was assumed."""

    command: Command = Command.KEEP_FORWARD
    text: str = ""
    is_default: bool = True
