"""Open-loop measures of nuScenes plans: displacement and the published occupancy collision test.

Source: the evaluation code published with OpenDriveVLA, which follows ST-P3 and UniAD. Positions are metres,
x forward and y left, relative to the ego vehicle's present pose (origin: nuScenes' LIDAR_TOP), at 0.5 s steps.
In these axes rows of an occupancy table run forward and columns run left. All arithmetic is float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opendrivevla_ros.core.geometry import Array

STEPS = 6
STEPS_PER_SECOND = 2

GRID_CELLS = 200
CELL_METRES = 0.5
FIRST_CELL_METRES = -49.75  # centre of row 0 and of column 0

EGO_LENGTH, EGO_WIDTH = 4.084, 1.85
EGO_CENTRE_FORWARD = 0.5  # from the origin of the positions to the middle of the ego box

# Axes on which the published tables are stored mirrored.
VEHICLE_TABLE_MIRRORED_AXES = (-1,)
ALL_AGENTS_TABLE_MIRRORED_AXES = (-2, -1)


def without_present(values: NDArray[Any], *, axis: int = 0) -> NDArray[Any]:
    """`values` of the future steps only: an odd time length means that the first entry is the present frame.

    Raises ValueError if that does not leave STEPS steps.
    """
    steps = values.shape[axis]
    if steps // 2 * 2 != STEPS:
        raise ValueError(
            f"open-loop evaluation got {steps} time steps; give {STEPS} future steps of 0.5 s, or {STEPS + 1} with "
            "the present frame first"
        )
    return np.take(values, np.arange(steps % 2, steps), axis=axis)


def displacement(predicted: ArrayLike, reference: ArrayLike, mask: ArrayLike) -> Array:
    """Distance [..., T] between predicted and reference positions [..., T, 2], metres.

    mask: [..., T, 2], 1 where the reference was observed, else 0; a fully masked step counts as 0, as published.
    """
    first, second = _finite("predicted", predicted), _finite("reference", reference)
    weights = _finite("mask", mask)
    if not first.shape == second.shape == weights.shape:
        shapes = f"{list(first.shape)}, {list(second.shape)} and {list(weights.shape)}"
        raise ValueError(f"predicted, reference and mask must have one shape [..., T, 2], not {shapes}")
    return np.sqrt(((first - second) ** 2 * weights).sum(axis=-1))


def cells_in_polygon(corners: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows [K] and columns [K] of the cells whose centre lies inside a polygon, in row-major order.

    corners: [N, 2] (row, column) in cells, where cell (i, j) has its centre at (i, j). A centre is inside when a ray
    from it crosses the outline an odd number of times.
    """
    _, rows, columns = cells_in_polygons(_finite("corners", corners)[None])
    return rows, columns


def cells_in_polygons(
    corners: ArrayLike,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which polygon [K], rows [K] and columns [K] of the cells in each of the polygons [B, N, 2], all at once.

    The cells of each are those of `cells_in_polygon`.
    """
    outlines = _finite("corners", corners)
    low = np.floor(outlines.min(axis=1)).astype(np.int64)
    heights, widths = (np.ceil(outlines.max(axis=1)).astype(np.int64) - low + 1).T
    polygon, row = _counted(heights)
    row += low[polygon, 0]
    line, column = _counted(widths[polygon])  # a line: a row of a polygon
    column += low[polygon[line], 1]
    inside = np.zeros(len(line), dtype=np.bool_)
    for first, second in zip(outlines.swapaxes(0, 1), np.roll(outlines, -1, axis=1).swapaxes(0, 1), strict=True):
        (row_a, column_a), (row_b, column_b) = first[polygon].T, second[polygon].T
        crosses = (row_a > row) != (row_b > row)
        rise = np.where(crosses, row_b - row_a, 1.0)
        crossing = np.where(crosses, column_a + (row - row_a) * (column_b - column_a) / rise, -np.inf)
        inside ^= column < crossing[line]
    line = line[inside]
    return polygon[line], row[line], column[inside]


def _counted(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For things of these lengths, one after another: which thing, and the place in it from 0 on."""
    thing = np.repeat(np.arange(len(lengths)), lengths)
    return thing, np.arange(len(thing)) - (np.cumsum(lengths) - lengths)[thing]


@cache
def ego_cells() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows [32] and columns [32] of the cells under the ego box at the present pose; not to be changed."""
    forward = EGO_CENTRE_FORWARD + EGO_LENGTH / 2 * np.array([-1.0, 1.0, 1.0, -1.0])
    left = EGO_WIDTH / 2 * np.array([1.0, 1.0, -1.0, -1.0])
    return cells_in_polygon((np.column_stack([forward, left]) - FIRST_CELL_METRES) / CELL_METRES)


def box_touches(positions: ArrayLike, occupancy: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any occupied cell is under the ego box at each of the positions [..., T, 2]; bool [..., T].

    As published, the box is moved but never turned, its cells are truncated to whole ones, and cells beyond the
    grid are moved to its border. occupancy: [..., T, 200, 200], not mirrored.
    """
    shift = _finite("positions", positions)[..., None, :] / CELL_METRES
    rows, columns = ego_cells()
    cells = np.clip((shift + np.column_stack([rows, columns])).astype(np.int64), 0, GRID_CELLS - 1)
    return _occupied(occupancy, cells).any(axis=-1)


def centre_touches(positions: ArrayLike, occupancy: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the cell at each of the positions [..., T, 2] is occupied; bool [..., T], False beyond the grid."""
    cells = ((_finite("positions", positions) - FIRST_CELL_METRES) / CELL_METRES).astype(np.int64)
    inside = ((cells >= 0) & (cells < GRID_CELLS)).all(axis=-1)
    return inside & _occupied(occupancy, np.clip(cells, 0, GRID_CELLS - 1)[..., None, :])[..., 0]


@dataclass(frozen=True)
class Collisions:
    """Outcome of the published collision test, each bool [..., T].

    box, centre: the plan's ego box, or only its middle, is on an occupied cell, at steps where the reference's box
    is not. reference: the reference's own box is on an occupied cell.
    """

    box: NDArray[np.bool_]
    centre: NDArray[np.bool_]
    reference: NDArray[np.bool_]


def collisions(predicted: ArrayLike, reference: ArrayLike, occupancy: NDArray[np.bool_]) -> Collisions:
    """The published collision test for positions [..., T, 2] in occupancy [..., T, 200, 200], not mirrored.

    Steps at which the reference itself collides can't be the plan's fault and are not counted as collisions.
    """
    excused = box_touches(reference, occupancy)
    box = box_touches(predicted, occupancy) & ~excused
    centre = centre_touches(predicted, occupancy) & ~excused
    return Collisions(box=box, centre=centre, reference=excused)


@dataclass(frozen=True)
class HorizonValues:
    """A measure at 1, 2 and 3 s, in the unit of what was averaged."""

    one_second: float
    two_seconds: float
    three_seconds: float

    @property
    def average(self) -> float:
        """Mean over the three horizons, the single number that papers print."""
        return (self.one_second + self.two_seconds + self.three_seconds) / 3


def uniad_convention(values: Sequence[Array] | Array) -> HorizonValues:
    """Mean over samples of per-step values [N, 6], each horizon taken at its own step (UniAD)."""
    steps = _step_means(values)
    return HorizonValues(*(float(steps[STEPS_PER_SECOND * second - 1]) for second in (1, 2, 3)))


def stp3_convention(values: Sequence[Array] | Array) -> HorizonValues:
    """Mean over samples of per-step values [N, 6], each horizon averaged over all steps up to it (ST-P3)."""
    steps = _step_means(values)
    return HorizonValues(*(float(steps[: STEPS_PER_SECOND * second].mean()) for second in (1, 2, 3)))


def _step_means(values: Sequence[Array] | Array) -> Array:
    samples = np.asarray(values, dtype=np.float64)
    if samples.ndim != 2 or samples.shape[1] != STEPS or len(samples) == 0:
        raise ValueError(f"averages need values [samples, {STEPS}] of one sample or more, not {list(samples.shape)}")
    return samples.mean(axis=0)


def _finite(name: str, values: ArrayLike) -> Array:
    """`values` as float64 [..., 2]; raises ValueError for another shape or a value that is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 2 or array.shape[-1] != 2 or array.size == 0:
        raise ValueError(f"{name} must be points [..., N, 2] with N > 0, not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite; leave them out")
    return array


def _occupied(occupancy: NDArray[np.bool_], cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Occupancy [..., T, 200, 200] at cells [..., T, K, 2] (row, column); bool [..., T, K]."""
    if occupancy.shape != (*cells.shape[:-2], GRID_CELLS, GRID_CELLS):
        expected = [*cells.shape[:-2], GRID_CELLS, GRID_CELLS]
        raise ValueError(f"occupancy must be {expected} to fit the positions, not {list(occupancy.shape)}")
    flat = occupancy.reshape(*occupancy.shape[:-2], -1)
    return np.take_along_axis(flat, cells[..., 0] * GRID_CELLS + cells[..., 1], axis=-1).astype(bool)
