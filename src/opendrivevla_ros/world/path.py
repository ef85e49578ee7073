"""Curves in the plane by arc length: one path, and a bundle that places many points on many paths at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from opendrivevla_ros.core.geometry import Array, distances_along

SAMPLE_METRES = 1.0
_APART = 0.2  # metres between the points of a path, or it would bend through their noise
_COARSE = 8  # every eighth sample takes part in the first search for the closest point
_WINDOW = 2 * _COARSE + 1
_SMOOTHING = 3  # samples over which curvature is averaged: joints of lanes become short transition curves


@dataclass(frozen=True)
class Path:
    """A curve sampled at equal steps.

    points: [N, 2] metres. heading: [N] radians, without jumps. curvature: [N] 1/m, left positive. spacing: metres
    from sample to sample, about SAMPLE_METRES.
    """

    points: Array
    heading: Array
    curvature: Array
    spacing: float

    @classmethod
    def through(cls, points: ArrayLike) -> "Path":
        """The smooth path through points [K, 2], K > 1, without those that are less than 0.2 m from the one before.

        Raises ValueError where fewer than two are left.
        """
        given = np.asarray(points, dtype=np.float64)
        apart = [given[0]]
        for point in given[1:]:
            if math.dist(point, apart[-1]) > _APART:
                apart.append(point)
        if len(apart) < 2:
            raise ValueError(
                f"a path needs at least two points {_APART} m apart, not {len(apart)} of {len(given)} points"
            )
        kept = np.array(apart)
        knots = distances_along(kept)
        spline = CubicSpline(knots, kept, bc_type="natural" if len(kept) < 4 else "not-a-knot")
        count = max(2, round(knots[-1] / SAMPLE_METRES) + 1)
        dense = spline(np.linspace(0.0, knots[-1], 4 * count))
        lengths = distances_along(dense)
        at = np.interp(np.linspace(0.0, lengths[-1], count), lengths, np.linspace(0.0, knots[-1], 4 * count))
        first = spline(at, 1)
        heading = np.unwrap(np.arctan2(first[:, 1], first[:, 0]))
        spacing = float(lengths[-1]) / (count - 1)
        curvature = np.gradient(heading, spacing)
        padded = np.pad(curvature, _SMOOTHING // 2, mode="edge")
        curvature = np.convolve(padded, np.full(_SMOOTHING, 1 / _SMOOTHING), mode="valid")
        return cls(spline(at), heading, curvature, spacing)

    @property
    def length(self) -> float:
        """Metres from the first to the last sample."""
        return self.spacing * (len(self.points) - 1)

    def pose(self, s: float, lateral: float = 0.0) -> tuple[float, float, float]:
        """x, y and heading at `s` metres along, `lateral` metres to the left; straight on beyond both ends."""
        bundle = PathBundle((self,))
        x, y, yaw, _ = bundle.poses(np.zeros(1, dtype=np.intp), np.array([s]), np.array([lateral]))
        return float(x[0]), float(y[0]), float(yaw[0])

    def locate(self, x: float, y: float, near: float) -> tuple[float, float, float]:
        """Arc length, lateral offset and path heading for a point that is about `near` metres along."""
        for _ in range(2):
            sample = min(max(round(near / self.spacing), 0), len(self.heading) - 1)
            heading, curvature = float(self.heading[sample]), float(self.curvature[sample])
            dx, dy = x - float(self.points[sample, 0]), y - float(self.points[sample, 1])
            along = dx * math.cos(heading) + dy * math.sin(heading)
            lateral = dy * math.cos(heading) - dx * math.sin(heading)
            bent = along
            if abs(along) <= SAMPLE_METRES:
                bent = along / min(max(1.0 - curvature * lateral, 0.3), 3.0)
                lateral -= 0.5 * curvature * bent * bent
                heading += curvature * bent
            near = sample * self.spacing + bent
        return near, lateral, heading

    def offset(self, lateral: float) -> Array:
        """[N, 2]: the curve moved `lateral` metres to the left (less than the radius of every bend)."""
        normal = np.column_stack([-np.sin(self.heading), np.cos(self.heading)])
        return self.points + lateral * normal

    def project(self, points: ArrayLike) -> tuple[Array, Array]:
        """Arc length [A] and lateral offset [A], left positive, of the closest points to `points` [A, 2]."""
        s, lateral, _ = PathBundle((self,)).project(np.asarray(points, dtype=np.float64))
        return s[0], lateral[0]


class PathBundle:
    """Paths laid side by side in arrays: every query runs over all of them in a few numpy calls."""

    def __init__(self, paths: Sequence[Path]) -> None:
        counts = [len(path.points) for path in paths]
        longest = max(*counts, _WINDOW) if len(counts) > 1 else max(counts[0], _WINDOW)
        self.paths = tuple(paths)
        self.count = np.array(counts)
        self.spacing = np.array([path.spacing for path in paths])
        self.length = np.array([path.length for path in paths])
        self._size = longest

        def padded(arrays: list[Array]) -> Array:
            return np.stack([np.pad(array, (0, longest - len(array)), mode="edge") for array in arrays])

        self._x = padded([path.points[:, 0] for path in paths])
        self._y = padded([path.points[:, 1] for path in paths])
        self._heading = padded([path.heading for path in paths])
        self._curvature = padded([path.curvature for path in paths])
        self._coarse_x = np.ascontiguousarray(self._x[:, None, ::_COARSE])
        self._coarse_y = np.ascontiguousarray(self._y[:, None, ::_COARSE])
        self._rows = (np.arange(len(paths)) * longest)[:, None]
        self._window = np.arange(_WINDOW)

    def project(self, points: Array, *, paths: int | None = None) -> tuple[Array, Array, Array]:
        """Arc length, lateral offset and path heading, each [P, A], of points [A, 2] on the first `paths` paths.

        A point beyond an end is placed on the straight continuation there.
        """
        rows = slice(paths)
        x, y = points[:, 0], points[:, 1]
        far_x = x[None, :, None] - self._coarse_x[rows]
        far_y = y[None, :, None] - self._coarse_y[rows]
        near = (far_x * far_x + far_y * far_y).argmin(axis=2) * _COARSE
        first = np.minimum(np.maximum(near - _COARSE, 0), self._size - _WINDOW) + self._rows[rows]
        window = first[:, :, None] + self._window
        dx = x[:, None] - self._x.take(window)
        dy = y[:, None] - self._y.take(window)
        index = first + (dx * dx + dy * dy).argmin(axis=2)
        index = np.minimum(index, self._rows[rows] + self.count[rows, None] - 1)
        heading, curvature = self._heading.take(index), self._curvature.take(index)
        dx, dy = x - self._x.take(index), y - self._y.take(index)
        cosine, sine = np.cos(heading), np.sin(heading)
        along, lateral = dx * cosine + dy * sine, dy * cosine - dx * sine
        # Second order about the sample: exact on a straight, millimetres off on the tightest bend. Far off the
        # curve or beyond its ends the plain tangent holds.
        beside = np.abs(along) <= SAMPLE_METRES
        bent = np.where(beside, along / np.minimum(np.maximum(1.0 - curvature * lateral, 0.3), 3.0), along)
        lateral = np.where(beside, lateral - 0.5 * curvature * bent * bent, lateral)
        s = (index - self._rows[rows]) * self.spacing[rows, None] + bent
        return s, lateral, heading + curvature * np.where(beside, bent, 0.0)

    def poses(self, path: NDArray[np.intp], s: Array, lateral: Array) -> tuple[Array, Array, Array, Array]:
        """x, y, heading and curvature, each [M], `s` metres along and `lateral` metres left of given paths."""
        sample = np.rint(s / self.spacing[path]).astype(np.intp)
        sample = np.minimum(np.maximum(sample, 0), self.count[path] - 1)
        index = path * self._size + sample
        along = s - sample * self.spacing[path]
        curvature = self._curvature.take(index) * (np.abs(along) <= SAMPLE_METRES)
        heading, turned = self._heading.take(index), curvature * along
        middle, end = heading + 0.5 * turned, heading + turned
        x = self._x.take(index) + along * np.cos(middle) - lateral * np.sin(end)
        y = self._y.take(index) + along * np.sin(middle) + lateral * np.cos(end)
        return x, y, end, curvature
