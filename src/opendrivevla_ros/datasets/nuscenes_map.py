"""Writes the map of a nuScenes-format data set from road layers, as the devkit's map API reads it.

It is a mask picture at 0.1 m a pixel, and a file of the map expansion (version 1.3).
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError, Row, token

# The map API takes the names of nuScenes' four places only. Boston has right-hand traffic, as the world has.
MAP_NAME = "boston-seaport"
PIXELS_PER_METRE = 10  # the devkit's, for every mask
MARGIN_METRES = 30.0  # around a scene's road, so that what stands beside it is on the map too
SHELF_METRES = 3000.0  # scenes stand side by side up to this width, then a new row begins
MASK_PIXEL_LIMIT = 2**32  # some 400 junctions; the devkit takes a byte of memory for each where it draws the map
STRIP_ROWS = 1000
LANE, CONNECTOR = "lane", "lane_connector"
BOUNDARIES = "opendrivevla_boundaries"


@dataclass(frozen=True)
class LaneShape:
    """A lane: outline [N, 2] metres; connector: it crosses a junction; successors: indices of the lanes after it."""

    outline: Array
    connector: bool = False
    successors: tuple[int, ...] = ()


@dataclass(frozen=True)
class RoadLayers:
    """What the map of one scene holds, in the scene's own frame: outlines and lines [N, 2], metres.

    drivable: outlines whose union is the drivable area. lane_dividers: between lanes of one direction; road_dividers:
    between the two directions. boundaries: kerbs; where none are given they are the edges of the drivable area, which
    is wrong where a road goes on beyond the map.
    """

    drivable: tuple[Array, ...]
    lanes: tuple[LaneShape, ...] = ()
    lane_dividers: tuple[Array, ...] = ()
    road_dividers: tuple[Array, ...] = ()
    crosswalks: tuple[Array, ...] = ()
    stop_lines: tuple[Array, ...] = ()
    boundaries: tuple[Array, ...] = ()

    @property
    def shapes(self) -> tuple[Array, ...]:
        """Every outline and line."""
        lines = (*self.lane_dividers, *self.road_dividers, *self.stop_lines, *self.boundaries)
        return (*self.drivable, *(lane.outline for lane in self.lanes), *self.crosswalks, *lines)

    @property
    def bounds(self) -> Array:
        """[2, 2]: least and greatest x and y of the drivable area with a margin."""
        points = np.concatenate(self.drivable)
        return np.stack([points.min(axis=0) - MARGIN_METRES, points.max(axis=0) + MARGIN_METRES])


class MapWriter:
    """Puts the roads of many scenes on one map, side by side."""

    def __init__(self) -> None:
        self._shelf = np.zeros(2)  # where the next scene goes
        self._shelf_height = 0.0
        self._size = np.zeros(2)
        self._layers: dict[str, list[Row]] = {
            name: []
            for name in (
                *("polygon", "line", "node", "drivable_area", "road_segment", "road_block", LANE, CONNECTOR),
                *("ped_crossing", "walkway", "stop_line", "carpark_area", "road_divider", "lane_divider"),
                "traffic_light",
            )
        }
        self._connectivity: dict[str, Row] = {}
        self._drivable: list[Array] = []
        self._boundaries: list[Array] = []

    def add(self, scene: str, road: RoadLayers) -> Array:
        """Adds a scene's road; returns the shift [2], metres, from the scene's own frame to the map's.

        Raises DatasetError for a road without area or with points that are not finite, and when the map grows beyond
        what a mask may hold.
        """
        if not road.drivable or not all(np.isfinite(points).all() for points in road.shapes):
            raise DatasetError(f"{scene} has no drivable area, or a road with points that are not finite")
        least, greatest = road.bounds
        extent = np.ceil(greatest - least)
        if self._shelf[0] > 0 and self._shelf[0] + extent[0] > SHELF_METRES:
            self._shelf = np.array([0.0, self._shelf[1] + self._shelf_height])
            self._shelf_height = 0.0
        size = np.maximum(self._size, self._shelf + extent)
        if size.prod() * PIXELS_PER_METRE**2 > MASK_PIXEL_LIMIT:
            metres = " x ".join(f"{side:.0f}" for side in size)
            raise DatasetError(
                f"{scene} makes the map {metres} m, too large for one mask; export fewer scenes at once"
            )
        shift = np.asarray(self._shelf - least)
        self._shelf = self._shelf + np.array([extent[0], 0.0])
        self._shelf_height = max(self._shelf_height, float(extent[1]))
        self._size = size
        self._add_areas(scene, road, shift)
        self._add_lanes(scene, road.lanes, shift)
        self._boundaries.extend(line + shift for line in road.boundaries)
        for layer, lines in (("lane_divider", road.lane_dividers), ("road_divider", road.road_dividers)):
            for index, line in enumerate(lines):
                self._row(layer, (scene, index), line_token=self._line(scene, line + shift))
        return shift

    def mask(self) -> bytes:
        """The PNG of the drivable area: row 0 is the north edge, 255 where one may drive.

        It is drawn strip by strip, because the whole of a large map would take gigabytes.
        """
        width, height = (int(side * PIXELS_PER_METRE) for side in self._size)
        outlines = [outline * [PIXELS_PER_METRE, -PIXELS_PER_METRE] + [0, height] for outline in self._drivable]
        packer, packed = zlib.compressobj(), bytearray()
        for top in range(0, height, STRIP_ROWS):
            strip = np.zeros((min(STRIP_ROWS, height - top), width), np.uint8)
            for outline in outlines:
                if outline[:, 1].max() >= top and outline[:, 1].min() <= top + len(strip):
                    cv2.fillPoly(strip, [np.round(outline - [0, top]).astype(np.int32)], 255)
            packed += packer.compress(np.pad(strip, ((0, 0), (1, 0))).tobytes())  # a row begins with its filter: none
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey
        chunks = ((b"IHDR", header), (b"IDAT", bytes(packed + packer.flush())), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)

    def expansion(self) -> Row:
        """The content of the map expansion's file. Lanes have no centre lines (`arcline_path_3` is empty).

        BOUNDARIES is this package's addition; nuScenes has no such layer, and the devkit takes no notice of it.
        """
        return {
            "version": "1.3",
            "canvas_edge": self._size.tolist(),
            **self._layers,
            "arcline_path_3": {},
            "connectivity": self._connectivity,
            BOUNDARIES: [line.round(3).tolist() for line in self._boundaries],
        }

    def _add_areas(self, scene: str, road: RoadLayers, shift: Array) -> None:
        outlines = [outline + shift for outline in road.drivable]
        self._drivable.extend(outlines)
        polygons = [self._polygon(scene, outline) for outline in outlines]
        self._row("drivable_area", (scene,), polygon_tokens=polygons)
        for index, polygon in enumerate(polygons):
            self._row(
                "road_segment", (scene, index), polygon_token=polygon, is_intersection=False, drivable_area_token=""
            )
        for index, outline in enumerate(road.crosswalks):
            polygon = self._polygon(scene, outline + shift)
            self._row("ped_crossing", (scene, index), polygon_token=polygon, road_segment_token="")
        for index, line in enumerate(road.stop_lines):
            self._row(
                "stop_line",
                (scene, index),
                polygon_token=self._polygon(scene, _widened(line + shift)),
                stop_line_type="STOP_SIGN",
                ped_crossing_tokens=[],
                traffic_light_tokens=[],
                road_block_token="",
            )

    def _add_lanes(self, scene: str, lanes: Sequence[LaneShape], shift: Array) -> None:
        tokens = [token(CONNECTOR if lane.connector else LANE, scene, index) for index, lane in enumerate(lanes)]
        for name in tokens:
            self._connectivity[name] = {"incoming": [], "outgoing": []}
        for index, lane in enumerate(lanes):
            self._row(
                CONNECTOR if lane.connector else LANE,
                (scene, index),
                polygon_token=self._polygon(scene, lane.outline + shift),
                lane_type="CAR",
                from_edge_line_token="",
                to_edge_line_token="",
                left_lane_divider_segments=[],
                right_lane_divider_segments=[],
            )
            for successor in lane.successors:
                self._connectivity[tokens[index]]["outgoing"].append(tokens[successor])
                self._connectivity[tokens[successor]]["incoming"].append(tokens[index])

    def _row(self, layer: str, parts: Iterable[object], **columns: Any) -> str:
        name = token(layer, *parts)
        self._layers[layer].append({"token": name, **columns})
        return name

    def _nodes(self, scene: str, points: Array) -> list[str]:
        first = len(self._layers["node"])
        return [
            self._row("node", (scene, first + index), x=x, y=y)
            for index, (x, y) in enumerate(points.round(3).tolist())
        ]

    def _polygon(self, scene: str, outline: Array) -> str:
        nodes = self._nodes(scene, outline)
        return self._row("polygon", (scene, len(self._layers["polygon"])), exterior_node_tokens=nodes, holes=[])

    def _line(self, scene: str, points: Array) -> str:
        return self._row("line", (scene, len(self._layers["line"])), node_tokens=self._nodes(scene, points))


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _widened(line: Array, width: float = 0.4) -> Array:
    """A rectangle [4, 2] around a segment [2, 2]: stop lines are polygons in nuScenes."""
    along = line[-1] - line[0]
    across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6) * width / 2
    return np.stack([line[0] + across, line[-1] + across, line[-1] - across, line[0] - across])
