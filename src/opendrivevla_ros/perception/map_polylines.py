"""Map masks as polylines in metres: centre lines of thin shapes, outlines of areas.

A strip's contour runs up one side and down the other. Folded at the right place, its two halves lie on each other,
and the points midway between them are the centre line. The place is found by trying all of them: it is where the
halves lie closest. This follows bends and U-turns, needs no thinning, and costs some 100 microseconds a strip; a
line's ends are found to within a fiftieth of its length. A strip that closes on itself has two contours; its centre
line lies midway between them. A shape that is no strip, such as a fork, is given by its outline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.perception.config import MAP_CLASSES, PerceptionConfig
from opendrivevla_ros.perception.map_head import MapResult

AREA_CLASSES = ("ped_crossing", "drivable_area")
TOLERANCE_CELLS = 0.5  # how far a simplified polyline may leave the traced one
MIN_LENGTH_CELLS = 2.0  # shorter lines are specks
MIN_AREA_CELLS = 4.0
MAX_PARTS = 8  # the longest parts of one mask; an untrained network's masks hold hundreds of specks
RING_HOLE_SHARE = 0.5  # a strip is a ring if its hole is at least this share of the area it encloses
STRIP_INSIDE_SHARE = 0.8  # a centre line has this share of its points in the mask, or a cell beside it
CONTOUR_SAMPLES = 96

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

_HALF = CONTOUR_SAMPLES // 2
_STEPS = np.arange(1, _HALF)
_AHEAD = (np.arange(_HALF)[:, None] + _STEPS) % CONTOUR_SAMPLES
_BEHIND = (np.arange(_HALF)[:, None] - _STEPS) % CONTOUR_SAMPLES


@dataclass(frozen=True)
class Polyline:
    """points: [N, 2] metres (x, y) in the lidar frame, N >= 2; closed: the last point joins the first."""

    points: Points
    closed: bool


@dataclass(frozen=True)
class MapPolyline:
    """A polyline of the road with its class in MAP_CLASSES, and its score in [0, 1]."""

    label: str
    score: float
    line: Polyline


def map_polylines(result: MapResult, config: PerceptionConfig) -> list[MapPolyline]:
    """All accepted elements, best first, then the drivable area (score 1: the network gives it none)."""
    masks, labels, scores = (x.cpu().numpy() for x in (result.masks, result.labels, result.scores.float()))
    elements = [
        MapPolyline(MAP_CLASSES[label], min(float(score), 1.0), line)
        for mask, label, score in zip(masks, labels, scores, strict=True)
        for line in trace(mask, MAP_CLASSES[label], config)
    ]
    drivable = MAP_CLASSES[-1]
    elements += [MapPolyline(drivable, 1.0, line) for line in trace(result.drivable.cpu().numpy(), drivable, config)]
    return elements


def trace(mask: Mask, label: str, config: PerceptionConfig) -> list[Polyline]:
    """Polylines of one mask [n, n] on the BEV grid, longest first: outlines of areas, else centre lines."""
    find = outlines if label in AREA_CLASSES else centre_lines
    x_min, y_min = config.range_metres[:2]
    return [Polyline((points + 0.5) * config.cell_metres + (x_min, y_min), closed) for points, closed in find(mask)]


def outlines(mask: Mask) -> list[tuple[Points, bool]]:
    """Closed contours [N, 2] (column, row) of a mask's parts; holes are not told."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    areas = [contour for contour in contours if cv2.contourArea(contour) >= MIN_AREA_CELLS]
    longest = sorted(areas, key=lambda contour: cv2.arcLength(contour, True), reverse=True)[:MAX_PARTS]
    return [(_simplify(contour[:, 0], closed=True), True) for contour in longest]


def centre_lines(mask: Mask) -> list[tuple[Points, bool]]:
    """Centre lines [N, 2] (column, row) of a mask's parts, and whether each closes on itself."""
    cells = mask.astype(np.uint8)
    contours, tree = cv2.findContours(cells, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if tree is None:
        return []
    outer = [index for index, node in enumerate(tree[0]) if node[3] < 0 and len(contours[index]) > 2]
    near = cv2.dilate(cells, np.ones((3, 3), np.uint8))
    lines = []
    for index in sorted(outer, key=lambda index: len(contours[index]), reverse=True)[:MAX_PARTS]:
        contour = contours[index]
        hole = _largest_hole(index, contours, tree[0])
        if hole is not None and cv2.contourArea(hole) >= RING_HOLE_SHARE * cv2.contourArea(contour):
            lines.append((_simplify(_between(contour[:, 0], hole[:, 0]), closed=True), True))
            continue
        points = _fold(contour[:, 0])
        column, row = points.round().astype(int).T
        if near[row, column].mean() < STRIP_INSIDE_SHARE:
            lines.append((_simplify(contour[:, 0], closed=True), True))
        elif cv2.arcLength(points.astype(np.float32), False) >= MIN_LENGTH_CELLS:
            lines.append((_simplify(points, closed=False), False))
    return lines


def _largest_hole(outer: int, contours: Sequence[NDArray], tree: NDArray) -> NDArray | None:
    holes = []
    child = tree[outer][2]
    while child >= 0:
        holes.append(contours[child])
        child = tree[child][0]
    return max(holes, key=len, default=None)


def _resample(loop: NDArray) -> Points:
    """CONTOUR_SAMPLES points at even distances along a closed loop [N, 2]."""
    closed = np.concatenate([loop, loop[:1]]).astype(np.float64)
    walked = np.concatenate([[0.0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    places = np.arange(CONTOUR_SAMPLES) * (walked[-1] / CONTOUR_SAMPLES)
    return np.stack([np.interp(places, walked, closed[:, 0]), np.interp(places, walked, closed[:, 1])], axis=1)


def _fold(contour: NDArray) -> Points:
    """The centre line of a strip from the contour around it."""
    loop = _resample(contour)
    gaps = loop[_AHEAD] - loop[_BEHIND]
    start = int(np.einsum("skd,skd->s", gaps, gaps).argmin())
    middle = (loop[_AHEAD[start]] + loop[_BEHIND[start]]) / 2
    return np.concatenate([loop[start, None], middle, loop[start + _HALF, None]])


def _between(outer: NDArray, inner: NDArray) -> Points:
    """The loop midway between two loops: each point of the outer one drawn half-way to the nearest inner one."""
    loop, other = _resample(outer), _resample(inner)
    distance = np.square(loop[:, None] - other).sum(-1)
    return (loop + other[distance.argmin(1)]) / 2


def _simplify(points: NDArray, *, closed: bool) -> Points:
    return cv2.approxPolyDP(points.astype(np.float32), TOLERANCE_CELLS, closed)[:, 0].astype(np.float64)
