"""The ego vehicle: a kinematic bicycle about the rear axle, within the limits of its actuators."""

from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.geometry import Array, wrap_angle
from opendrivevla_ros.world.state import EGO_LENGTH, EGO_WHEELBASE, EGO_WIDTH, Ego

MAX_ACCELERATION, MAX_BRAKING = 3.0, 8.0  # m/s^2
MAX_JERK = 25.0  # m/s^3, of the brake
MAX_STEERING, MAX_STEERING_RATE = 0.60, 0.80  # rad, rad/s
PASSING_CLEARANCE = 0.9  # metres that a careful driver leaves beside what is passed
BRAKE_LIGHTS_BELOW = -0.6  # m/s^2; gentler slowing is engine drag


@dataclass(frozen=True)
class EgoCommand:
    """What the driver asks for: acceleration, m/s^2, and steering angle at the front wheels, rad, left positive."""

    acceleration: float
    steering: float


def step_ego(ego: Ego, command: EgoCommand, dt: float) -> Ego:
    """The ego after `dt` seconds of a command, cut to what the actuators can do. It does not drive backwards.

    Raises ValueError for a command that is not finite.
    """
    if not (np.isfinite(command.acceleration) and np.isfinite(command.steering)):
        raise ValueError(f"ego command must be finite, not {command}")
    wanted = min(max(command.acceleration, -MAX_BRAKING), MAX_ACCELERATION)
    acceleration = min(max(wanted, ego.acceleration - MAX_JERK * dt), ego.acceleration + MAX_JERK * dt)
    angle = min(max(command.steering, -MAX_STEERING), MAX_STEERING)
    turn = MAX_STEERING_RATE * dt
    steering = min(max(angle, ego.steering - turn), ego.steering + turn)
    speed = ego.speed + acceleration * dt
    distance = (ego.speed + speed) / 2 * dt
    if speed <= 0.0:
        distance = min(ego.speed**2 / (2 * -acceleration), ego.speed * dt) if acceleration < 0 else 0.0
        speed = 0.0
        acceleration = 0.0 if ego.speed == 0.0 else acceleration
    turned = distance * float(np.tan((ego.steering + steering) / 2)) / EGO_WHEELBASE
    middle = ego.yaw + turned / 2
    return Ego(
        x=ego.x + distance * float(np.cos(middle)),
        y=ego.y + distance * float(np.sin(middle)),
        yaw=float(wrap_angle(ego.yaw + turned)),
        speed=speed,
        acceleration=acceleration,
        steering=steering,
        brake_lights=acceleration < BRAKE_LIGHTS_BELOW or (speed == 0.0 and wanted <= 0.0),
    )


def ego_box(ego: Ego) -> Array:
    """[5] x, y, yaw, length, width of the ego's body."""
    x, y = ego.centre
    return np.array([x, y, ego.yaw, EGO_LENGTH, EGO_WIDTH])


def steering_along(*, lateral: float, heading_error: float, curvature: float, speed: float) -> float:
    """The steering angle, rad, that brings the rear axle back onto a path and keeps it there.

    lateral: metres left of the path; heading_error: rad against it; curvature: of the path ahead, 1/m. In arc length
    the lateral error follows a critically damped oscillator of length 0.6 s of travel, at least 2.5 m.
    """
    scale = max(2.5, 0.6 * speed)
    following = curvature * np.cos(heading_error) / max(0.3, 1.0 - curvature * lateral)
    wanted = following - lateral / scale**2 - 2.0 * np.sin(heading_error) / scale
    return float(np.arctan(EGO_WHEELBASE * wanted))
