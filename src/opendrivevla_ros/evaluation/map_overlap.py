"""Map figures: intersection over union on the BEV grid of what was found and what is true, by class.

Truth is drawn as training draws it, lines one cell wide. What was found comes in two forms. Plans carry polylines, the
middles of what the network marked: drawn by the same code they show how well a user of the plan knows the road; drawn
from perfect masks they reach 0.95 for lines, but a line half a cell off loses most of its overlap. The network's own
masks, where a policy tells them (`TellsMap`), are what map segmentation is usually measured on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.perception.config import MAP_CLASSES, PerceptionConfig
from opendrivevla_ros.perception.map_drawing import draw_map
from opendrivevla_ros.perception.map_head import MapResult
from opendrivevla_ros.perception.map_polylines import Mask

# that of the small preset, 40 x 40 cells of 2 m: of policies that tell no masks
GRID = PerceptionConfig(range_metres=(-40.0, -40.0, -5.0, 40.0, 40.0, 3.0), bev_size=40)


@dataclass(frozen=True)
class MapScores:
    """overlap: intersection over union of all samples together, by class; a class that is nowhere has none.

    true_cells: how many cells the class really covers, over all samples.
    """

    overlap: dict[str, float]
    true_cells: dict[str, int]


@runtime_checkable
class TellsMap(Protocol):
    """A policy that tells its network's masks, and the grid that they are on."""

    @property
    def map_grid(self) -> PerceptionConfig:
        """Range and size."""

    @property
    def map_result(self) -> MapResult | None:
        """Of the last plan; None before the first."""


def polyline_cells(elements: Sequence[MapElement], lidar_to_base: Array, grid: PerceptionConfig = GRID) -> Mask:
    """[4, n, n] the cells of each of MAP_CLASSES that elements in base_link cover."""
    return draw_map(elements, lidar_to_base, grid).by_class()


def mask_cells(result: MapResult) -> Mask:
    """[4, n, n] the cells of each of MAP_CLASSES that the network marked."""
    masks, labels = result.masks.cpu().numpy(), result.labels.cpu().numpy()
    things = [masks[labels == index].any(axis=0) for index in range(len(MAP_CLASSES) - 1)]
    return np.stack([*things, result.drivable.cpu().numpy()]).astype(np.bool_)


def cell_counts(found: Mask, true: Mask) -> NDArray[np.int64]:
    """[4, 3] by class: cells that both [4, n, n] cover, that either covers, and that the true ones cover."""
    return np.stack([part.sum(axis=(1, 2)) for part in (found & true, found | true, true)], axis=1)


def map_scores(counts: Iterable[NDArray[np.int64]]) -> MapScores:
    """The figures from the `cell_counts` of many samples."""
    total = np.sum([np.zeros((len(MAP_CLASSES), 3), dtype=np.int64), *counts], axis=0)
    rows = dict(zip(MAP_CLASSES, total.tolist(), strict=True))
    return MapScores(
        overlap={name: both / either for name, (both, either, _) in rows.items() if either},
        true_cells={name: true for name, (_, _, true) in rows.items()},
    )
