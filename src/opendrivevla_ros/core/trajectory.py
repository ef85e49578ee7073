"""A planned motion: poses in time, and what follows from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import Array, wrap_angle

FUTURE_TIMES_S: Array = np.arange(1, 7) * 0.5  # after t0: of the published plans, and of what is known of the future
WAYPOINTS = len(FUTURE_TIMES_S)
STANDSTILL_STEP_METRES = 0.1  # a step shorter than this has no heading of its own


@dataclass(frozen=True)
class Trajectory:
    """N points after t0, in base_link at t0.

    times: [N] seconds after t0, rising. xy: [N, 2] metres. yaw: [N] radians. velocity, acceleration, curvature: [N],
    longitudinal m/s, m/s^2 and signed 1/m. covariance: [N, 2, 2] of xy, m^2.
    """

    times: Array
    xy: Array
    yaw: Array
    velocity: Array
    acceleration: Array
    curvature: Array
    covariance: Array

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def from_waypoints(
        cls, times: ArrayLike, xy: ArrayLike, start_speed: float = 0.0, covariance: ArrayLike | None = None
    ) -> "Trajectory":
        """A trajectory through waypoints that starts at the origin with heading 0 and `start_speed` (m/s).

        Heading at a point is that of the step that leads to it (kept from the point before while standing, and
        turned about when the step goes backwards); speed is step length over step time, negative backwards;
        acceleration and curvature are differences of those. Raises ValueError for shapes that do not fit, times
        that do not rise, or values that are not finite.
        """
        times = np.asarray(times, dtype=np.float64)
        xy = np.asarray(xy, dtype=np.float64)
        count = len(times)
        spread = np.zeros((count, 2, 2)) if covariance is None else np.asarray(covariance, dtype=np.float64)
        if count == 0 or xy.shape != (count, 2) or spread.shape != (count, 2, 2):
            shapes = f"times {times.shape}, xy {xy.shape}, covariance {spread.shape}"
            raise ValueError(f"waypoints need times [N], xy [N, 2], covariance [N, 2, 2] with N > 0, not {shapes}")
        if not (np.isfinite(times).all() and np.isfinite(xy).all() and np.isfinite(spread).all()):
            raise ValueError("waypoints must be finite")
        durations = np.diff(times, prepend=0.0)
        if (durations <= 0).any():
            raise ValueError(f"waypoint times must rise from above 0, not {times.tolist()}")
        steps = np.diff(xy, axis=0, prepend=np.zeros((1, 2)))
        lengths = np.hypot(steps[:, 0], steps[:, 1])
        yaw, signs = _headings(steps, lengths)
        velocity = signs * lengths / durations
        acceleration = np.diff(velocity, prepend=start_speed) / durations
        turns = wrap_angle(np.diff(yaw, prepend=0.0))
        moving = lengths >= STANDSTILL_STEP_METRES
        curvature = np.where(moving, signs * turns / np.where(moving, lengths, 1.0), 0.0)
        return cls(times, xy, yaw, velocity, acceleration, curvature, spread)


def _headings(steps: Array, lengths: Array) -> tuple[Array, Array]:
    """Heading [N] and direction of travel [N] (+1 forwards, -1 backwards) of each step [N, 2]."""
    yaw, signs, heading = np.zeros(len(steps)), np.ones(len(steps)), 0.0
    for index, (step, length) in enumerate(zip(steps, lengths, strict=True)):
        if length >= STANDSTILL_STEP_METRES:
            course = float(np.arctan2(step[1], step[0]))
            backwards = abs(float(wrap_angle(course - heading))) > np.pi / 2
            heading = float(wrap_angle(course + np.pi)) if backwards else course
            signs[index] = -1.0 if backwards else 1.0
        yaw[index] = heading
    return yaw, signs
