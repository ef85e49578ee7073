"""Plans against boxes: where the lidar goes, what the grid holds, and whom a turned body touches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.boxes import corners, overlaps
from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, invert, planar_transform
from opendrivevla_ros.evaluation import open_loop
from opendrivevla_ros.evaluation.plan_scores import lidar_path, occupancy, touches
from opendrivevla_ros.safety.road_users import Body

BODY = Body(front=3.4, rear=0.6, half_width=0.9)
LEVER = NUSCENES_LIDAR_TO_BASE[0, 3]
ONE = np.zeros(1, dtype=np.int64)


def random_boxes(seed: int, count: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    places, yaw = random.uniform(-65, 65, (count, 2)), random.uniform(-4, 4, count)
    return np.column_stack([places, yaw, random.uniform([0.3, 0.3], [13.0, 3.0], (count, 2))])


def test_the_body_turns_with_the_plan() -> None:
    beside = np.array([[1.4, 2.2, 0.0, 0.5, 0.5]])
    assert not touches(np.zeros((1, 3)), beside, ONE, BODY)[0]
    assert touches(np.array([[0.0, 0.0, 1.0]]), beside, ONE, BODY)[0]
    assert not touches(np.zeros((1, 3)), np.zeros((0, 5)), ONE[:0], BODY)[0]


@given(st.integers(0, 1000))
def test_many_instants_and_plans_at_once_are_those_of_one_after_another(seed: int) -> None:
    random, boxes = np.random.default_rng(seed), random_boxes(seed, 60)
    instants = random.integers(0, 4, len(boxes))
    plans = random.uniform([-60, -60, -4], [60, 60, 4], (3, 4, 3))
    found = touches(plans, boxes, instants, BODY)
    for plan, row in zip(plans, found, strict=True):
        for instant, hit in enumerate(row):
            assert hit == overlaps(BODY.boxes(plan[instant]), boxes[instants == instant]).any()


def test_the_lidar_goes_round_the_rear_axle() -> None:
    pose = np.array([4.0, 1.0, 0.6])
    there = planar_transform(*pose) @ NUSCENES_LIDAR_TO_BASE
    expected = there[:2, 3] - NUSCENES_LIDAR_TO_BASE[:2, 3]
    np.testing.assert_allclose(lidar_path(pose[None])[0], expected)


def test_forward_and_left_are_those_of_a_lidar_that_is_mounted_askew() -> None:
    mount = planar_transform(0.95, 0.02, 0.01) @ NUSCENES_LIDAR_TO_BASE
    pose = np.array([8.0, -1.0, 0.3])
    right, forward = (invert(mount) @ planar_transform(*pose) @ mount)[:2, 3]
    np.testing.assert_allclose(lidar_path(pose, mount), [forward, -right])


def test_the_published_test_finds_a_box_ahead_and_none_beside() -> None:
    grid = occupancy(np.array([[10.0 + LEVER, 0.0, 0.3, 4.0, 2.0]]), ONE, 1)
    assert 25 <= grid.sum() <= 40
    positions = np.array([[10.0, 0.0], [10.0, 5.0], [0.0, 0.0]])
    hits = open_loop.box_touches(positions, np.concatenate([grid] * 3))
    assert hits.tolist() == [True, False, False]
    assert not occupancy(np.array([[200.0, 0.0, 0.0, 4.0, 2.0]]), ONE, 1).any()
    assert occupancy(np.array([[51.0, 0.0, 0.0, 4.0, 2.0]]), ONE, 1).any()  # in part beyond the grid


@given(st.integers(0, 1000))
def test_all_boxes_at_once_cover_the_cells_of_one_after_another(seed: int) -> None:
    boxes = random_boxes(seed, 40)
    instants = np.random.default_rng(seed).integers(0, 3, len(boxes))
    expected = np.zeros((3, open_loop.GRID_CELLS, open_loop.GRID_CELLS), dtype=bool)
    for outline, instant in zip(corners(boxes), instants, strict=True):
        cells = (outline - [LEVER, 0.0] - open_loop.FIRST_CELL_METRES) / open_loop.CELL_METRES
        rows, columns = open_loop.cells_in_polygon(cells)
        inside = (np.minimum(rows, columns) >= 0) & (np.maximum(rows, columns) < open_loop.GRID_CELLS)
        expected[instant, rows[inside], columns[inside]] = True
    np.testing.assert_array_equal(occupancy(boxes, instants, 3), expected)


def test_a_cell_is_inside_where_its_centre_is() -> None:
    box = np.array([[5.0, -3.0, 0.7, 4.0, 1.5]])
    rows, columns = np.nonzero(occupancy(box, ONE, 1)[0])
    centres = np.column_stack([rows, columns]) * open_loop.CELL_METRES + open_loop.FIRST_CELL_METRES + [LEVER, 0.0]
    everywhere = np.stack(np.meshgrid(*[np.arange(200)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    places = everywhere * open_loop.CELL_METRES + open_loop.FIRST_CELL_METRES + [LEVER, 0.0] - box[0, :2]
    along = np.abs(places @ [np.cos(0.7), np.sin(0.7)])
    across = np.abs(places @ [-np.sin(0.7), np.cos(0.7)])
    assert len(centres) == ((along < 2.0) & (across < 0.75)).sum()
