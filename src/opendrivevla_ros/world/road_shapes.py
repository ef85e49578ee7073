"""Reference lines of roads: straights and circular bends joined by short transition curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.geometry import Array

MIN_RADIUS, MAX_RADIUS = 12.0, 200.0
_STEP = 0.25  # metres of integration
_TRANSITION = 4.0  # metres over which curvature rises and falls


@dataclass(frozen=True)
class Piece:
    """A stretch of road: `length` metres at `curvature` (1/m, left positive; 0 for a straight)."""

    length: float
    curvature: float = 0.0

    @classmethod
    def bend(cls, radius: float, angle: float) -> "Piece":
        """A bend of `radius` metres through `angle` radians (left positive).

        Raises ValueError for a radius outside MIN_RADIUS to MAX_RADIUS.
        """
        if not MIN_RADIUS <= radius <= MAX_RADIUS:
            raise ValueError(f"bend radius {radius:.1f} m; give {MIN_RADIUS:.0f} to {MAX_RADIUS:.0f} m")
        return cls(radius * abs(angle), float(np.sign(angle)) / radius)


def reference_line(start: tuple[float, float, float], pieces: Sequence[Piece]) -> Array:
    """[N, 2] points about 1 m apart along the pieces, from a pose (x, y, heading)."""
    ends = np.cumsum([piece.length for piece in pieces])
    count = max(2, round(ends[-1] / _STEP))
    step = ends[-1] / count
    middle = (np.arange(count) + 0.5) * step
    which = np.minimum(np.searchsorted(ends, middle), len(pieces) - 1)
    curvature = np.array([piece.curvature for piece in pieces])[which]
    window = max(1, round(_TRANSITION / step)) | 1
    curvature = np.convolve(np.pad(curvature, window // 2, mode="edge"), np.full(window, 1 / window), mode="valid")
    heading = start[2] + np.concatenate([[0.0], np.cumsum(curvature * step)])
    between = (heading[:-1] + heading[1:]) / 2
    x = start[0] + np.concatenate([[0.0], np.cumsum(np.cos(between) * step)])
    y = start[1] + np.concatenate([[0.0], np.cumsum(np.sin(between) * step)])
    keep = np.unique(np.rint(np.linspace(0, count, max(2, round(ends[-1]) + 1))).astype(int))
    return np.column_stack([x, y])[keep]


def connection(start: Array, start_heading: float, end: Array, end_heading: float) -> Array:
    """[N, 2] points about 0.5 m apart on the cubic curve that leaves `start` and reaches `end` along the headings.

    For a turn the handles are those that make a quarter circle of a right angle; otherwise a third of the distance.
    """
    first = np.array([np.cos(start_heading), np.sin(start_heading)])
    last = np.array([np.cos(end_heading), np.sin(end_heading)])
    chord = end - start
    cross = first[0] * last[1] - first[1] * last[0]
    distance = float(np.hypot(*chord))
    handles = (distance / 3, distance / 3)
    if abs(cross) > 0.3:
        ahead = (chord[0] * last[1] - chord[1] * last[0]) / cross
        behind = (first[0] * chord[1] - first[1] * chord[0]) / cross
        if ahead > 0 and behind > 0:
            handles = (0.5523 * ahead, 0.5523 * behind)
    controls = np.stack([start, start + handles[0] * first, end - handles[1] * last, end])
    t = np.linspace(0.0, 1.0, max(4, round(2 * distance)))[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return weights @ controls
