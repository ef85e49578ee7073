"""Questions about a road map: the nearest lane, and whether points and boxes are on the drivable area."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from opendrivevla_ros.core.boxes import corners
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.path import Path, PathBundle
from opendrivevla_ros.world.state import RoadMap


@dataclass(frozen=True)
class LanePlace:
    """Where points lie on their nearest lanes, each [A]: lane id, metres along, metres to the left, lane heading."""

    lane: NDArray[np.intp]
    s: Array
    lateral: Array
    heading: Array


class RoadQueries:
    """Fast queries on one map; build it once and keep it."""

    def __init__(self, road: RoadMap) -> None:
        self._lanes = PathBundle([Path.through(lane.centreline) for lane in road.lanes])
        self._polygons = [polygon.astype(np.float32) for polygon in road.drivable]

    def nearest_lane(self, points: ArrayLike) -> LanePlace:
        """The lane with the closest centreline to each of `points` [A, 2]."""
        points = np.asarray(points, dtype=np.float64)
        s, lateral, heading = self._lanes.project(points)
        beyond = np.maximum(np.maximum(-s, s - self._lanes.length[:, None]), 0.0)
        lane = np.hypot(lateral, beyond).argmin(axis=0)
        column = np.arange(len(points))
        return LanePlace(lane, s[lane, column], lateral[lane, column], heading[lane, column])

    def on_road(self, points: ArrayLike) -> NDArray[np.bool_]:
        """[A] bool: which of `points` [A, 2] lie on the drivable area, its edge included."""
        return np.array([self._depth(point) >= 0 for point in np.asarray(points, dtype=np.float64)], dtype=bool)

    def edge_distance(self, points: ArrayLike) -> Array:
        """[A] metres from `points` [A, 2] to the edge of the polygon they lie deepest in; negative off the road."""
        return np.array(
            [
                max(cv2.pointPolygonTest(polygon, (float(x), float(y)), True) for polygon in self._polygons)
                for x, y in np.asarray(points, dtype=np.float64)
            ]
        )

    def box_on_road(self, box: Array) -> bool:
        """Whether all four corners of a box [5] (x, y, yaw, length, width) are on the drivable area."""
        return bool(self.on_road(corners(box[None])[0]).all())

    def _depth(self, point: Array) -> float:
        """Positive inside, 0 on an edge, negative outside."""
        place = (float(point[0]), float(point[1]))
        return max(cv2.pointPolygonTest(polygon, place, False) for polygon in self._polygons)
