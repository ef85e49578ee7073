"""Plans held against the truth: what open loop in the driving world and on nuScenes have in common.

Displacement and the published occupancy test are those of `open_loop`, in both conventions. Beside it stands a
collision test that knows the truth: the ego's body, turned as the plan turns it, against the boxes of all others where
they really were.

Many boxes at many instants are worked on at once: boxes [N, 5] (x, y, yaw, length, width), each with its instant [N].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.boxes import corners, overlaps
from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, Array
from opendrivevla_ros.evaluation import open_loop
from opendrivevla_ros.evaluation.open_loop import HorizonValues, stp3_convention, uniad_convention
from opendrivevla_ros.safety.road_users import Body

NEAR_GRID_METRES = -open_loop.FIRST_CELL_METRES + 10.0  # boxes farther off leave no cell on the grid


@dataclass(frozen=True)
class Measure:
    """Values at 1, 2 and 3 s in the two conventions of `open_loop`."""

    uniad: HorizonValues
    stp3: HorizonValues

    @classmethod
    def of(cls, values: Array) -> "Measure":
        """From values [N, 6], one for each plan and step."""
        return cls(uniad_convention(values), stp3_convention(values))


def touches(poses: Array, boxes: Array, instants: NDArray[np.int64], body: Body) -> NDArray[np.bool_]:
    """[..., T] whether the ego's body at poses [..., T, 3] of base_link overlaps any of the boxes of that instant."""
    *before, box = np.nonzero(overlaps(body.boxes(poses)[..., instants, :], boxes))
    touched = np.zeros(poses.shape[:-1], dtype=np.bool_)
    touched[(*before, instants[box])] = True
    return touched


def lidar_path(poses: Array, lidar_to_base: Array = NUSCENES_LIDAR_TO_BASE) -> Array:
    """[..., 2] how far forward and left nuScenes' LIDAR_TOP will have gone at poses [..., 3] of base_link.

    Forward and left are those of the lidar, as in the published tables.
    """
    x, y = lidar_to_base[:2, 3]
    less, sine = np.cos(poses[..., 2]) - 1.0, np.sin(poses[..., 2])
    gone = np.stack([poses[..., 0] + (x * less - y * sine), poses[..., 1] + (x * sine + y * less)], axis=-1)
    return _along_grid(gone, lidar_to_base)


def occupancy(
    boxes: Array, instants: NDArray[np.int64], count: int, lidar_to_base: Array = NUSCENES_LIDAR_TO_BASE
) -> NDArray[np.bool_]:
    """[count, 200, 200] the grid of each instant, as large as the published ones, with the boxes in base_link on it.

    A cell is occupied where its centre is in a box.
    """
    near = (np.abs(boxes[:, :2]) < NEAR_GRID_METRES).all(axis=1)
    grids = np.zeros((count, open_loop.GRID_CELLS, open_loop.GRID_CELLS), dtype=np.bool_)
    if not near.any():
        return grids
    outlines = _along_grid(corners(boxes[near]) - lidar_to_base[:2, 3], lidar_to_base)
    cells = (outlines - open_loop.FIRST_CELL_METRES) / open_loop.CELL_METRES
    box, rows, columns = open_loop.cells_in_polygons(cells)
    inside = (rows >= 0) & (rows < open_loop.GRID_CELLS) & (columns >= 0) & (columns < open_loop.GRID_CELLS)
    grids[instants[near][box[inside]], rows[inside], columns[inside]] = True
    return grids


def _along_grid(vectors: Array, lidar_to_base: Array) -> Array:
    """Vectors [..., 2] of base_link, forward and left of the lidar."""
    turn = np.arctan2(lidar_to_base[1, 1], lidar_to_base[0, 1])  # of the lidar's y axis, which points forward
    cosine, sine = np.cos(turn), np.sin(turn)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([x * cosine + y * sine, y * cosine - x * sine], axis=-1)
