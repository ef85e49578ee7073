"""Map elements in base_link, true or predicted, drawn on the BEV grid: the one way from polylines to masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array, apply, invert
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.perception.config import MAP_CLASSES, PerceptionConfig
from opendrivevla_ros.perception.map_polylines import AREA_CLASSES, Mask

DRIVABLE = MAP_CLASSES[-1]
SUBCELL_BITS = 4  # cv2 draws at sixteenths of a cell


@dataclass(frozen=True)
class MapDrawing:
    """E elements on a grid of n x n cells (row 0 rear, column 0 left).

    elements: none of them the drivable area. masks: bool [E, n, n], none empty. drivable: bool [n, n].
    """

    elements: tuple[MapElement, ...]
    masks: Mask
    drivable: Mask

    def by_class(self) -> Mask:
        """[4, n, n] the cells of each of MAP_CLASSES."""
        cells = np.zeros((len(MAP_CLASSES), *self.drivable.shape), dtype=np.bool_)
        for element, mask in zip(self.elements, self.masks, strict=True):
            cells[MAP_CLASSES.index(element.label)] |= mask
        cells[-1] = self.drivable
        return cells


def draw_map(elements: Sequence[MapElement], lidar_to_base: Array, config: PerceptionConfig) -> MapDrawing:
    """The elements on the BEV grid: lines one cell wide, crossings filled; nothing outside the grid.

    The drivable area is given by closed rings; a ring inside another is a hole. Raises ValueError for a class that
    the network does not have, and for points that are not finite.
    """
    side, seen, masks = config.bev_size, [], []
    rings = []
    for element in elements:
        if element.label not in MAP_CLASSES:
            raise ValueError(f"a map element is a {element.label!r}; the classes are {MAP_CLASSES}")
        cells = _cells(element, lidar_to_base, config)
        if element.label == DRIVABLE:
            rings.append(cells)
            continue
        mask = np.zeros((side, side), np.uint8)
        if element.label in AREA_CLASSES:
            cv2.fillPoly(mask, [cells], 1, shift=SUBCELL_BITS)
        else:
            cv2.polylines(mask, [cells], element.closed, 1, shift=SUBCELL_BITS)
        if mask.any():
            seen.append(element)
            masks.append(mask)
    drivable = np.zeros((side, side), np.uint8)
    if rings:
        cv2.fillPoly(drivable, rings, 1, shift=SUBCELL_BITS)
    drawn = np.stack(masks) if masks else np.zeros((0, side, side), np.uint8)
    return MapDrawing(tuple(seen), drawn.astype(np.bool_), drivable.astype(np.bool_))


def _cells(element: MapElement, lidar_to_base: Array, config: PerceptionConfig) -> NDArray[np.int32]:
    """The element's points as cv2 takes them: int32 [N, 2] (column, row) in sixteenths, 0 the first cell's centre."""
    points = np.column_stack([element.points, np.zeros(len(element.points))])
    points = apply(invert(lidar_to_base), points)[:, :2]
    if not np.isfinite(points).all():
        raise ValueError(f"a {element.label} holds points that are not finite; leave it out of the labels")
    cells = (points - np.array(config.range_metres[:2])) / config.cell_metres - 0.5
    return np.round(cells * 2**SUBCELL_BITS).astype(np.int32)
