"""The map around a pose as labels: from road layers, or from nuScenes' map expansion through the devkit."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import LineString, MultiLineString, MultiPolygon, Polygon, STRtree
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from opendrivevla_ros.core.geometry import Array, yaw_of
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.datasets.nuscenes_map import BOUNDARIES, LANE, RoadLayers
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError, read_json

EDGE_METRES = 0.2  # an edge of the road this near to the end of the reach is only where it was cut off
MAP_REMEDY = "unpack nuScenes' map expansion 1.3 into maps/, or read the scenes without a map"


class MapGeometry:
    """The lines and areas of a place, found by where they are.

    road: areas whose union's edges are the boundaries where none are given, as in the published labels.
    reach: (forward and back, left and right), metres, of the elements around a pose.
    """

    def __init__(
        self,
        *,
        dividers: Iterable[BaseGeometry],
        crossings: Iterable[BaseGeometry],
        road: Iterable[BaseGeometry],
        drivable: Iterable[BaseGeometry],
        boundaries: Iterable[BaseGeometry],
        reach: tuple[float, float],
    ) -> None:
        self._dividers, self._crossings = STRtree(list(dividers)), STRtree(list(crossings))
        self._road, self._drivable = STRtree(list(road)), STRtree(list(drivable))
        self._boundaries = STRtree(list(boundaries))
        self._patch = shapely.box(-reach[0], -reach[1], reach[0], reach[1])

    @classmethod
    def of_layers(cls, road: RoadLayers, *, reach: tuple[float, float]) -> "MapGeometry":
        """The geometry of road layers, in their own frame."""
        drivable = [Polygon(outline) for outline in road.drivable]
        return cls(
            dividers=[LineString(line) for line in (*road.lane_dividers, *road.road_dividers)],
            crossings=[Polygon(outline) for outline in road.crosswalks],
            road=drivable,
            drivable=drivable,
            boundaries=[LineString(line) for line in road.boundaries],
            reach=reach,
        )

    @classmethod
    def read(cls, root: Path, name: str, *, reach: tuple[float, float]) -> "MapGeometry":
        """The geometry of a place (as in the log table) of the data set in `root`, by the devkit's map API.

        Raises DatasetError when the map expansion is not there or broken, or nuscenes-devkit is not installed.
        """
        try:
            from nuscenes.map_expansion.map_api import NuScenesMap
        except ImportError as error:
            raise DatasetError(f"maps are read by nuscenes-devkit ({error}); pip install nuscenes-devkit") from None
        path = root / "maps" / "expansion" / f"{name}.json"
        content = read_json(path, MAP_REMEDY)
        try:
            place = NuScenesMap(str(root), name)
            lines = [row["line_token"] for row in (*place.lane_divider, *place.road_divider)]
            drivable = [polygon for row in place.drivable_area for polygon in row["polygon_tokens"]]
            return cls(
                dividers=[place.extract_line(line) for line in lines],
                crossings=_areas(place, [row["polygon_token"] for row in place.ped_crossing]),
                road=_areas(place, [row["polygon_token"] for row in (*place.road_segment, *getattr(place, LANE))]),
                drivable=_areas(place, drivable),
                boundaries=[LineString(line) for line in content.get(BOUNDARIES, ())],
                reach=reach,
            )
        except Exception as error:  # its checks are assertions, and a broken file gives it nearly any error
            raise DatasetError(f"{path} is no map that the devkit loads ({error!r}); {MAP_REMEDY}") from None

    def elements(self, base_to_map: Array) -> tuple[MapElement, ...]:
        """Dividers, crossings, boundaries and drivable areas within reach, in base_link [N, 2]."""
        elements = [element for line in self._near(self._dividers, base_to_map) for element in _lines("divider", line)]
        elements.extend(_rings("ped_crossing", self._area(self._crossings, base_to_map)))
        if len(self._boundaries):
            edges = shapely.union_all(self._near(self._boundaries, base_to_map))
        else:
            edges = self._area(self._road, base_to_map).boundary
        elements.extend(_lines("boundary", edges.intersection(self._patch.buffer(-EDGE_METRES))))
        elements.extend(_rings("drivable_area", self._area(self._drivable, base_to_map)))
        return tuple(elements)

    def _area(self, tree: STRtree, base_to_map: Array) -> MultiPolygon:
        """The union of a tree's areas within reach."""
        union = shapely.union_all(_polygons(self._near(tree, base_to_map)))
        return MultiPolygon(_polygons([union]))

    def _near(self, tree: STRtree, base_to_map: Array) -> list[BaseGeometry]:
        """What of a tree lies within reach of a pose, cut off there, in base_link."""
        yaw, origin = yaw_of(base_to_map), base_to_map[:2, 3]
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        patch = shapely.transform(self._patch, lambda points: points @ turn.T + origin)
        found = tree.geometries[np.sort(tree.query(patch, predicate="intersects"))]
        moved = shapely.transform(found, lambda points: (points - origin) @ turn)
        return list(shapely.intersection(moved, self._patch))


def _areas(place: Any, tokens: Sequence[str]) -> list[BaseGeometry]:
    """Polygons of a map by token; some of nuScenes' cross themselves, and are mended as the devkit does it."""
    polygons = [place.extract_polygon(token) for token in tokens]
    return [polygon if polygon.is_valid else polygon.buffer(0) for polygon in polygons]


def _parts(geometry: BaseGeometry) -> list[BaseGeometry]:
    return list(getattr(geometry, "geoms", [geometry]))


def _polygons(geometries: Iterable[BaseGeometry]) -> list[Polygon]:
    """The polygons in geometries: what only touches the edge of the reach leaves points and lines there."""
    parts = (part for geometry in geometries for part in _parts(geometry))
    return [part for part in parts if isinstance(part, Polygon) and not part.is_empty]


def _lines(label: str, geometry: BaseGeometry) -> list[MapElement]:
    """The lines of a geometry, those that meet end to end joined."""
    lines = [part for part in _parts(geometry) if isinstance(part, LineString) and not part.is_empty]
    merged = shapely.line_merge(shapely.multilinestrings(lines)) if len(lines) > 1 else MultiLineString(lines)
    return [MapElement(label, 1.0, shapely.get_coordinates(line)) for line in _parts(merged)]


def _rings(label: str, areas: MultiPolygon) -> list[MapElement]:
    """The outlines of areas, and each of their holes as a ring of its own that turns the other way."""
    rings = [ring for area in areas.geoms for ring in (orient(area).exterior, *orient(area).interiors)]
    return [MapElement(label, 1.0, shapely.get_coordinates(ring)[:-1], closed=True) for ring in rings]
