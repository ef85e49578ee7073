"""Cells, pillars and the shift between frames."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.perception.bev_geometry import cell_centres, ego_motion_shift, pillar_points, project_pillars
from opendrivevla_ros.perception.config import PerceptionConfig

CONFIG = PerceptionConfig(bev_size=8, range_metres=(-16.0, -16.0, -5.0, 16.0, 16.0, 3.0))


def test_rows_go_from_rear_to_front_and_columns_from_left_to_right() -> None:
    points = pillar_points(CONFIG)
    assert points.shape == (64, 4, 3)
    assert points[0, 0, :2].tolist() == [-14.0, -14.0]
    assert points[7, 0, :2].tolist() == [14.0, -14.0]
    assert points[56, 0, :2].tolist() == [-14.0, 14.0]
    torch.testing.assert_close(points[0, :, 2], torch.tensor([-4.5, -4.5 + 7 / 3, -4.5 + 14 / 3, 2.5]))
    torch.testing.assert_close(cell_centres(8)[9], torch.tensor([0.1875, 0.1875]))


@given(st.floats(-math.pi, math.pi), st.floats(0, 10))
def test_driving_straight_ahead_shifts_by_the_distance_along_y_only(heading: float, metres: float) -> None:
    can_bus = torch.zeros(18, dtype=torch.float64)
    can_bus[0], can_bus[1], can_bus[16] = metres * math.cos(heading), metres * math.sin(heading), heading
    shift = ego_motion_shift(can_bus, CONFIG)
    torch.testing.assert_close(shift, torch.tensor([0.0, metres / 32]), rtol=1e-5, atol=1e-6)


def test_a_camera_sees_cells_ahead_of_it_and_none_behind() -> None:
    forward = torch.zeros(2, 4, 4, dtype=torch.float64)
    forward[0, 0, :2] = torch.tensor([50.0, 50.0])  # u = 50 x / y + 50, v = 50 - 50 z / y, depth = y
    forward[0, 1, 1:3] = torch.tensor([50.0, -50.0])
    forward[0, 2, 1] = 1.0
    pillars = project_pillars(pillar_points(CONFIG), forward, (100, 100))
    rows = pillars.pair_cell // 8
    assert pillars.pair_camera.eq(0).all()
    assert rows.min() >= 4
    # it sees 90 degrees: the row's outermost cells lie on the very edge, which does not count
    assert set((pillars.pair_cell[rows == 7] % 8).tolist()) == set(range(1, 7))
    assert pillars.pair_points.shape == (len(rows), 4, 2)


def test_the_share_of_a_cell_is_one_over_the_cameras_that_see_it() -> None:
    camera = torch.zeros(1, 4, 4, dtype=torch.float64)
    camera[0, 0, :2] = torch.tensor([50.0, 50.0])
    camera[0, 1, 1:3] = torch.tensor([50.0, -50.0])
    camera[0, 2, 1] = 1.0
    pillars = project_pillars(pillar_points(CONFIG), camera.repeat(3, 1, 1), (100, 100))
    seen = pillars.visible[0].any(-1)
    torch.testing.assert_close(pillars.cell_share[seen], torch.full((int(seen.sum()), 1), 1 / 3))
    assert pillars.cell_share[~seen].eq(1).all()
