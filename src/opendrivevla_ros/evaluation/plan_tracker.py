"""How a vehicle would drive a plan: an LQR tracker on a kinematic bicycle, at 10 Hz.

As in the driver score (NAVSIM, arXiv 2406.15349, section 3, after nuPlan): at every step one acceleration and one
steering rate are chosen that, held for HORIZON steps, bring place, speed and lateral state nearest to the plan's
(linear-quadratic, in closed form because each is one number). The place counts beside the speed: by the speed alone it
stopped 1 m late from 3 m/s.
"""

from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.ego import WHEELBASE
from opendrivevla_ros.core.geometry import Array, wrap_angle
from opendrivevla_ros.core.trajectory import Trajectory

STEP_S = 0.1
HORIZON = 10  # steps that a command is held for when it is chosen
PLACE_WEIGHT, SPEED_WEIGHT, ACCELERATION_WEIGHT = 10.0, 10.0, 1.0
LATERAL_WEIGHTS = np.diag([1.0, 10.0, 0.0])  # of lateral error (m), heading error (rad), steering (rad)
STEERING_RATE_WEIGHT = 1.0
MOST_STEERING, MOST_STEERING_RATE = 0.6, 0.8  # rad, rad/s
MOST_ACCELERATION, MOST_BRAKING = 3.0, 8.0  # m/s^2
STANDSTILL = 0.2  # m/s, below which speed and plan are taken to stand


@dataclass(frozen=True)
class Motion:
    """A vehicle every STEP_S, the present first; [T] each, in base_link at t0.

    times: s. xy: [T, 2] m. yaw: rad. speed, acceleration: lengthwise, m/s and m/s^2. steering: rad. yaw_rate: rad/s.
    """

    times: Array
    xy: Array
    yaw: Array
    speed: Array
    acceleration: Array
    steering: Array

    @property
    def yaw_rate(self) -> Array:
        return self.speed * np.tan(self.steering) / WHEELBASE


def track(
    plan: Trajectory, speed: float, *, steering: float = 0.0, acceleration: float = 0.0, horizon_s: float = 4.0
) -> Motion:
    """Drives a plan from its t0 with that speed (m/s), steering (rad) and acceleration, for `horizon_s` seconds.

    Raises ValueError for a plan that ends before, as it says nothing of what is to be scored.
    """
    if plan.times[-1] < horizon_s - 1e-9:
        raise ValueError(
            f"the plan ends after {plan.times[-1]:.1f} s, but {horizon_s:.1f} s are to be driven; shorten the horizon"
        )
    steps = round(horizon_s / STEP_S)
    reference = _reference(plan, speed, steps + HORIZON)
    state = np.array([0.0, 0.0, 0.0, speed, steering, acceleration])  # x, y, yaw, speed, steering, acceleration
    states = [state]
    for step in range(steps):
        state = _stepped(state, *_command(state, reference, step))
        states.append(state)
    x, y, yaw, speeds, angles, accelerations = np.array(states).T
    times = STEP_S * np.arange(steps + 1)
    return Motion(times, np.column_stack([x, y]), wrap_angle(yaw), speeds, accelerations, angles)


@dataclass(frozen=True)
class _Reference:
    """The plan every STEP_S: poses [T, 3], and along them metres, speed and curvature [T]."""

    poses: Array
    along: Array
    speed: Array
    curvature: Array


def _reference(plan: Trajectory, speed: float, steps: int) -> _Reference:
    times = np.concatenate([[0.0], plan.times])
    xy = np.vstack([np.zeros((1, 2)), plan.xy])
    wanted = STEP_S * np.arange(steps + 1)
    # a point's heading and speed are those of the step before it, and so its middle's; past its end the plan goes on
    middles = np.concatenate([[0.0], (times[1:] + times[:-1]) / 2])
    yaw = np.interp(wanted, middles, np.unwrap(np.concatenate([[0.0], plan.yaw])))
    speeds = np.interp(wanted, middles, np.concatenate([[speed], np.abs(plan.velocity)]))
    poses = np.column_stack([*(np.interp(wanted, times, column) for column in xy.T), yaw])
    moved = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    turned = np.diff(poses[:, 2], append=poses[-1, 2])
    lengths = np.append(moved, 0.0)
    curvature = np.divide(turned, lengths, out=np.zeros_like(turned), where=lengths > 0.05)
    along = np.concatenate([[0.0], np.cumsum(moved)])
    along += np.maximum(wanted - times[-1], 0.0) * speeds[-1]
    return _Reference(poses, along, speeds, curvature)


def _command(state: Array, reference: _Reference, step: int) -> tuple[float, float]:
    """Acceleration and steering rate."""
    x, y, yaw, speed, steering, _ = state
    ahead = reference.speed[min(step + HORIZON, len(reference.speed) - 1)]
    if speed < STANDSTILL and ahead < STANDSTILL:
        return -min(speed / STEP_S, MOST_BRAKING), 0.0
    px, py, heading = reference.poses[step]
    here = reference.along[step] + (x - px) * np.cos(heading) + (y - py) * np.sin(heading)
    span = HORIZON * STEP_S
    missing = reference.along[min(step + HORIZON, len(reference.along) - 1)] - here - speed * span
    wanted = SPEED_WEIGHT * span * (ahead - speed) + PLACE_WEIGHT * span**2 / 2 * missing
    acceleration = wanted / (SPEED_WEIGHT * span**2 + PLACE_WEIGHT * span**4 / 4 + ACCELERATION_WEIGHT)
    lateral = -(x - px) * np.sin(heading) + (y - py) * np.cos(heading)
    errors = np.array([lateral, float(wrap_angle(yaw - heading)), steering])
    free, forced = errors, np.zeros(3)  # what comes without a command, and of a steering rate of 1
    for later in range(HORIZON):
        v = max(speed + acceleration * later * STEP_S, 0.0)
        curvature = reference.curvature[min(step + later, len(reference.curvature) - 1)]
        move = np.array([[1.0, v * STEP_S, 0.0], [0.0, 1.0, v * STEP_S / WHEELBASE], [0.0, 0.0, 1.0]])
        free = move @ free - np.array([0.0, v * STEP_S * curvature, 0.0])
        forced = move @ forced + np.array([0.0, 0.0, STEP_S])
    weighted = forced @ LATERAL_WEIGHTS
    rate = -float(weighted @ free) / (float(weighted @ forced) + STEERING_RATE_WEIGHT)
    return float(acceleration), rate


def _stepped(state: Array, acceleration: float, rate: float) -> Array:
    """The kinematic bicycle about the rear axle, after STEP_S."""
    x, y, yaw, speed, steering, _ = state
    acceleration = float(np.clip(acceleration, -MOST_BRAKING, MOST_ACCELERATION))
    angle = float(np.clip(steering + STEP_S * np.clip(rate, -MOST_STEERING_RATE, MOST_STEERING_RATE), -0.6, 0.6))
    following = max(speed + acceleration * STEP_S, 0.0)
    distance = (speed + following) / 2 * STEP_S
    turned = distance * np.tan((steering + angle) / 2) / WHEELBASE
    middle = yaw + turned / 2
    return np.array(
        [x + distance * np.cos(middle), y + distance * np.sin(middle), yaw + turned, following, angle, acceleration]
    )
