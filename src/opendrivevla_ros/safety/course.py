"""A plan as the vehicle that follows it sees it now: from where it stands, in seconds from now."""

from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.geometry import Array, apply, wrap_angle, yaw_of
from opendrivevla_ros.core.trajectory import STANDSTILL_STEP_METRES, Trajectory


@dataclass(frozen=True)
class Course:
    """N + 1 poses of base_link in the vehicle's base_link now: where the plan began, then its N points.

    times: [N + 1] seconds from now, the first not above 0. xy: [N + 1, 2] metres. yaw: [N + 1] radians.
    """

    times: Array
    xy: Array
    yaw: Array

    @classmethod
    def seen_from(cls, trajectory: Trajectory, base_to_now: Array, age_s: float) -> "Course":
        """A trajectory, which is in base_link at its t0, from where the vehicle is `age_s` later.

        base_to_now: 4x4, base_link at t0 to base_link now.
        """
        points = np.vstack([np.zeros(2), trajectory.xy])
        return cls(
            times=np.concatenate([[0.0], trajectory.times]) - age_s,
            xy=apply(base_to_now, np.column_stack([points, np.zeros(len(points))]))[:, :2],
            yaw=wrap_angle(np.concatenate([[0.0], trajectory.yaw]) + yaw_of(base_to_now)),
        )

    @property
    def lengths(self) -> Array:
        """[N] metres of each step."""
        return np.hypot(*np.diff(self.xy, axis=0).T)

    @property
    def speeds(self) -> Array:
        """[N] m/s in each step, negative backwards."""
        steps = np.diff(self.xy, axis=0)
        forwards = steps[:, 0] * np.cos(self.yaw[1:]) + steps[:, 1] * np.sin(self.yaw[1:])
        return np.where(forwards < 0, -1.0, 1.0) * self.lengths / np.diff(self.times)

    @property
    def turns(self) -> Array:
        """[N] radians that the heading changes by in each step; none while it stands."""
        return np.where(self.lengths < STANDSTILL_STEP_METRES, 0.0, wrap_angle(np.diff(self.yaw)))

    def at(self, times: Array) -> Array:
        """[..., 3] x, y and yaw at times [...] in seconds from now; the first and the last pose beyond the ends."""
        yaw = np.interp(times, self.times, np.unwrap(self.yaw))
        return np.stack([*(np.interp(times, self.times, axis) for axis in self.xy.T), wrap_angle(yaw)], axis=-1)
