"""Map figures: intersection over union by class, from polylines and from masks."""

import numpy as np
import pytest
import torch

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.evaluation.map_overlap import GRID, cell_counts, map_scores, mask_cells, polyline_cells
from opendrivevla_ros.perception.config import MAP_CLASSES
from opendrivevla_ros.perception.map_head import MapResult

MOUNT = np.array(NUSCENES_LIDAR_TO_BASE)


def line(y: float, first: float = -60.0, last: float = 60.0) -> MapElement:
    return MapElement("divider", 0.8, np.array([[first, y], [last, y]]))


def test_lines_on_each_other_overlap_wholly_and_half_a_line_by_half() -> None:
    true = polyline_cells([line(9.0)], MOUNT)
    assert map_scores([cell_counts(true, true)]).overlap == {"divider": 1.0}
    half = polyline_cells([line(9.0, 0.95)], MOUNT)
    assert map_scores([cell_counts(half, true)]).overlap["divider"] == pytest.approx(0.5, abs=0.03)
    assert map_scores([cell_counts(polyline_cells([line(-9.0)], MOUNT), true)]).overlap["divider"] == 0.0


def test_samples_count_by_their_cells_together() -> None:
    true, none = polyline_cells([line(9.0)], MOUNT), polyline_cells([], MOUNT)
    scores = map_scores([cell_counts(true, true), cell_counts(none, true), cell_counts(none, none)])
    assert scores.overlap == {"divider": 0.5}
    assert scores.true_cells == {"divider": 80, "ped_crossing": 0, "boundary": 0, "drivable_area": 0}
    assert map_scores([]).overlap == {}


def test_masks_of_one_class_count_together() -> None:
    side = GRID.bev_size
    masks = torch.zeros(3, side, side, dtype=torch.bool)
    masks[0, :, 3], masks[1, 5], masks[2, :, 7] = True, True, True
    drivable = torch.zeros(side, side, dtype=torch.bool)
    drivable[:10] = True
    result = MapResult(masks, torch.tensor([0, 2, 0]), torch.ones(3), drivable, masks[:3])
    cells = mask_cells(result)
    assert cells.shape == (len(MAP_CLASSES), side, side)
    assert cells.sum(axis=(1, 2)).tolist() == [2 * side, 0, side, 10 * side]
    empty = MapResult(masks[:0], torch.zeros(0, dtype=torch.int64), torch.ones(0), drivable, masks[:3])
    assert mask_cells(empty).sum() == 10 * side
