"""Six waypoints as text, `<traj_start>[(x1,y1),...,(x6,y6)]<traj_end>`, and back: strictly, nothing is ever mended.

Waypoints are in the lidar frame at t0 (x right, y forward), metres, at 0.5, 1.0, ..., 3.0 s.
"""

import re

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.trajectory import WAYPOINTS

TRAJECTORY_START = "<traj_start>"
TRAJECTORY_END = "<traj_end>"
WAYPOINT_STEP_S = 0.5
LARGEST_METRES = 999.99  # three digits before the point

_NUMBER = r"\s*(-?[0-9]{1,3}(?:\.[0-9]{1,6})?)\s*"
_PAIR = rf"\s*\({_NUMBER},{_NUMBER}\)\s*"
_POINTS = re.compile(rf"\[{','.join([_PAIR] * WAYPOINTS)}\]")
_MARKERS = (TRAJECTORY_START, TRAJECTORY_END)


class TrajectoryTextError(ValueError):
    """The text is not one list of six waypoints."""


def format_trajectory(xy: ArrayLike) -> str:
    """The text of waypoints [6, 2]. Raises ValueError for another shape, or values over 999.99 m or not finite."""
    points = np.asarray(xy, dtype=np.float64)
    if points.shape != (WAYPOINTS, 2):
        raise ValueError(
            f"a trajectory text holds {WAYPOINTS} points of x and y, not an array of shape {points.shape}"
        )
    if not (np.abs(points) <= LARGEST_METRES).all():
        raise ValueError(f"a trajectory text holds finite values up to {LARGEST_METRES} m, not {points.tolist()}")
    pairs = ",".join(f"({x:.2f},{y:.2f})" for x, y in points)
    return f"{TRAJECTORY_START}[{pairs}]{TRAJECTORY_END}"


def parse_trajectory(text: str) -> Array:
    """The waypoints [6, 2] in `text`, exactly as written.

    Words around the list, blanks inside it and missing markers are taken; any other departure from six plain pairs,
    a second list or a marker in the wrong place raises TrajectoryTextError.
    """
    match = _POINTS.search(text)
    if match is None:
        raise TrajectoryTextError(f"no list of exactly {WAYPOINTS} (x,y) pairs in {_shortened(text)}")
    before, after = text[: match.start()], text[match.end() :]
    if re.search(r"[()\[\]]", before + after):
        raise TrajectoryTextError(f"brackets beside the list of waypoints in {_shortened(text)}")
    for marker, side in zip(_MARKERS, (before, after), strict=True):
        if text.count(marker) != side.count(marker) or side.count(marker) > 1:
            raise TrajectoryTextError(f"{marker} is repeated or in the wrong place in {_shortened(text)}")
    return np.array([float(number) for number in match.groups()]).reshape(WAYPOINTS, 2)


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "...")
