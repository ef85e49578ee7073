"""A tracking controller: turns a planned trajectory into acceleration and steering, as a vehicle does."""

import numpy as np

from opendrivevla_ros.core.geometry import Array, apply
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.state import Ego
from opendrivevla_ros.world.vehicle import EgoCommand, steering_along

PREVIEW_S = 1.0  # the speed is chosen to be where the plan is, this much later
STANDSTILL_METRES = 0.5  # a plan shorter than this is a stop
STOPPING_DECELERATION = 3.0  # m/s^2
STEERING_PREVIEW_S = 0.3


class TrajectoryTracker:
    """Follows one trajectory, planned at `stamp_ns` in base_link, whose pose then was `base_to_world` [4, 4].

    The world's ego does not drive backwards: where a plan turns back, it is taken to stop.
    """

    def __init__(self, trajectory: Trajectory, base_to_world: Array, stamp_ns: int) -> None:
        points = np.concatenate([np.zeros((1, 2)), trajectory.xy])
        back = np.flatnonzero(trajectory.velocity < 0.0)
        if len(back):
            points[back[0] + 1 :] = points[back[0]]
        steps = np.hypot(*np.diff(points, axis=0).T)
        self._stamp_ns = stamp_ns
        self._times = np.concatenate([[0.0], trajectory.times])
        self._travelled = np.concatenate([[0.0], np.cumsum(steps)])
        self._path: Path | None = None
        if self._travelled[-1] >= STANDSTILL_METRES:
            # A point behind the start makes the path leave it along the vehicle's heading.
            points = np.concatenate([[[-1.0, 0.0]], points])
            world = apply(base_to_world, np.column_stack([points, np.zeros(len(points))]))[:, :2]
            self._path = Path.through(world)

    def command(self, ego: Ego, time_ns: int) -> EgoCommand:
        """What the actuators should do at `time_ns`. Past its last point the plan is braked to a stop."""
        age = (time_ns - self._stamp_ns) * 1e-9
        if self._path is None:
            return EgoCommand(-STOPPING_DECELERATION if ego.speed > 0 else 0.0, ego.steering)
        s, lateral = self._path.project([[ego.x, ego.y]])
        along = float(s[0]) - 1.0
        aim = float(np.interp(age + PREVIEW_S, self._times, self._travelled))
        acceleration = 2.0 * (aim - along - ego.speed * PREVIEW_S) / PREVIEW_S**2
        sample = int(np.clip(round(float(s[0]) / self._path.spacing), 0, len(self._path.heading) - 1))
        ahead = sample + 1 + round(max(1.0, STEERING_PREVIEW_S * ego.speed) / self._path.spacing)
        _, _, heading = self._path.pose(float(s[0]))
        steering = steering_along(
            lateral=float(lateral[0]),
            heading_error=float((ego.yaw - heading + np.pi) % (2 * np.pi) - np.pi),
            curvature=float(self._path.curvature[sample:ahead].mean()),
            speed=ego.speed,
        )
        return EgoCommand(acceleration, steering)
