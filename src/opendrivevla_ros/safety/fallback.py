"""What the vehicle does when there is no plan to follow: it stops, on its last good way, and stays there."""

from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.geometry import Array, distances_along
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.road_users import Body, Movers, free_way, own_stops

STEP_S = 0.5  # between the points of a stop, as in a model's plan
LEAST_S = 3.0  # that a stop covers, as a model's plan does
RESOLUTION_METRES = 0.25  # of the way on which it stops
FADE_S, FADE_METRES = 2.0, 5.0  # within so much of the way, and no less, the vehicle is back on it


@dataclass(frozen=True)
class StopLimits:
    """comfortable, hard: braking in m/s^2 with nobody in the way, and the most of it. clearance: metres kept."""

    comfortable: float = 2.0
    hard: float = 6.0
    clearance: float = 1.5


def stop(way: Course | None, speed: float, movers: Movers, body: Body, limits: StopLimits) -> Trajectory:
    """A stop from where the vehicle is now, in its base_link, to standstill; points every STEP_S.

    way: the last plan that was good, seen from now; None, or one that is over, for straight ahead. speed: m/s;
    negative, it stops straight behind. movers: who may be in the way. Brakes as `comfortable` says, or as hard as
    it takes to stand `clearance` before whoever is in the way, even if they brake as hard as is possible.
    """
    pace = abs(speed)
    line = _line(way if speed > 0 else None, pace, limits)
    if speed < 0:
        line = -line
    braking = _braking(line, pace, movers, body, limits)
    duration = pace / braking
    count = int(np.ceil(max(duration, LEAST_S) / STEP_S))
    times = np.arange(1, count + 1) * STEP_S
    moving = np.minimum(times, duration)
    along = pace * moving - braking * moving**2 / 2
    lengths = distances_along(line)
    xy = np.column_stack([np.interp(along, lengths, axis) for axis in line.T])
    return Trajectory.from_waypoints(times, xy, speed)


def _line(way: Course | None, pace: float, limits: StopLimits) -> Array:
    """[M, 2] the line to stop on, from the vehicle at 0, 0 for as far as the gentlest stop goes."""
    reach = pace**2 / (2 * limits.comfortable) + 1.0
    count = int(np.ceil(reach / RESOLUTION_METRES)) + 2
    wanted = np.arange(count) * RESOLUTION_METRES
    points = np.zeros((0, 2)) if way is None else _coming(way)
    if len(points) < 2:
        return np.column_stack([wanted, np.zeros(count)])
    lengths = distances_along(points)
    line = np.column_stack([np.interp(wanted, lengths, axis) for axis in points.T])
    end = points[-1] - points[-2]
    beyond = np.maximum(wanted - lengths[-1], 0.0)
    line += beyond[:, None] * end / np.hypot(*end)
    # the vehicle is beside its way, as all followers are: it comes back to it, and does not jump there
    share = np.clip(wanted / max(FADE_S * pace, FADE_METRES), 0.0, 1.0)
    return line - line[0] * (1 - share**2 * (3 - 2 * share))[:, None]


def _coming(way: Course) -> Array:
    """[P, 2] the way from the place nearest to the vehicle on, without points that repeat."""
    points = way.at(np.linspace(way.times[0], way.times[-1], 10 * len(way.times)))[:, :2]
    points = points[int(np.hypot(*points.T).argmin()) :]
    steps = np.hypot(*np.diff(points, axis=0).T)
    return points[np.concatenate([[True], steps > 1e-3])]


def _braking(line: Array, pace: float, movers: Movers, body: Body, limits: StopLimits) -> float:
    """m/s^2: v^2 / 2b is no more than what is free and what the one ahead goes on (RSS, arXiv 1708.06374)."""
    if not len(movers) or pace == 0.0:
        return limits.comfortable
    steps = np.diff(line, axis=0)
    headings = np.arctan2(steps[:, 1], steps[:, 0])
    poses = np.column_stack([line[:-1], np.unwrap(headings)])
    free = free_way(poses, movers, body, 0.0)
    room = np.maximum(free + own_stops(poses, free, movers, limits.hard) - limits.clearance, 1e-6)
    return float(np.clip(pace**2 / (2 * room.min()), limits.comfortable, limits.hard))
