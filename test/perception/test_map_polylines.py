"""Masks on the BEV grid to polylines in metres."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.map_head import MapResult
from opendrivevla_ros.perception.map_polylines import centre_lines, map_polylines, outlines, trace

SIDE = 200
CONFIG = PerceptionConfig()


def draw(points: np.ndarray, thickness: int = 4, *, closed: bool = False) -> np.ndarray:
    """A mask with a thick line through points (column, row)."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    cv2.polylines(mask, [np.round(points).astype(np.int32)], closed, 1, thickness)
    return mask.astype(bool)


def circle(radius: float, degrees: float) -> np.ndarray:
    angle = np.radians(np.linspace(0, degrees, 200))
    return 100 + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def distance_to(line: np.ndarray, points: np.ndarray, *, closed: bool = False) -> np.ndarray:
    """How far each point lies from a polyline."""
    first, last = (line, np.roll(line, -1, axis=0)) if closed else (line[:-1], line[1:])
    along = last - first
    share = ((points[:, None] - first) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
    nearest = first + share.clip(0, 1)[..., None] * along
    return np.linalg.norm(points[:, None] - nearest, axis=-1).min(1)


def length(line: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def test_no_cells_give_no_polyline() -> None:
    empty = np.zeros((SIDE, SIDE), dtype=bool)
    assert centre_lines(empty) == []
    assert outlines(empty) == []


@pytest.mark.parametrize("cells", [[(5, 7)], [(5, 7), (5, 8)], [(0, 0)], [(199, 199), (3, 3)]])
def test_specks_give_no_polyline(cells: list[tuple[int, int]]) -> None:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for cell in cells:
        mask[cell] = True
    assert centre_lines(mask) == []
    assert outlines(mask) == []


@settings(deadline=None)
@given(
    st.tuples(st.integers(10, 190), st.integers(10, 190)),
    st.tuples(st.integers(10, 190), st.integers(10, 190)),
    st.integers(1, 6),
)
def test_a_straight_strip_gives_its_centre_line(first: tuple[int, int], last: tuple[int, int], thickness: int) -> None:
    drawn = np.array([first, last], dtype=float)
    if length(drawn) < 20:
        return
    ((line, closed),) = centre_lines(draw(drawn, thickness))
    assert not closed
    assert distance_to(drawn, line).max() < 0.5 * thickness + 1
    assert distance_to(line, np.linspace(*drawn, 50)[5:-5]).max() < 1.2
    assert abs(length(line) - length(drawn)) < thickness + 2 + 0.05 * length(drawn)


@pytest.mark.parametrize(
    "drawn",
    [
        circle(60, 150),
        circle(80, 270),
        np.array([[40, 20], [40, 150], [100, 180], [150, 150], [150, 20]]),
        np.array([[30, 30], [150, 30], [150, 150]]),
    ],
    ids=["arc", "three-quarter circle", "U-turn", "corner"],
)
@pytest.mark.parametrize("thickness", [1, 4, 7])
def test_a_bent_strip_gives_its_centre_line(drawn: np.ndarray, thickness: int) -> None:
    ((line, closed),) = centre_lines(draw(drawn, thickness))
    assert not closed
    assert distance_to(drawn, line).max() < 0.5 * thickness + 1
    assert length(line) > 0.9 * length(drawn)
    assert len(line) < 40


@pytest.mark.parametrize("thickness", [1, 4, 7])
def test_a_ring_gives_a_closed_line(thickness: int) -> None:
    drawn = circle(60, 360)
    ((line, closed),) = centre_lines(draw(drawn, thickness, closed=True))
    assert closed
    np.testing.assert_allclose(np.linalg.norm(line - 100, axis=1), 60, atol=1.5)
    assert distance_to(line, drawn, closed=True).max() < 2


def test_a_strip_with_a_pinhole_is_no_ring() -> None:
    mask = draw(np.array([[20, 100], [180, 100]]), 7)
    mask[100, 90] = False
    ((_, closed),) = centre_lines(mask)
    assert not closed


def test_a_fork_is_given_by_its_outline() -> None:
    mask = draw(np.array([[100, 20], [100, 100], [40, 170], [100, 100], [170, 170]]))
    ((line, closed),) = centre_lines(mask)
    assert closed
    filled = cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [line.round().astype(np.int32)], 1).astype(bool)
    assert (filled & mask).sum() > 0.9 * mask.sum()


def test_parts_of_a_mask_are_lines_of_their_own_the_longest_first_and_only_the_longest() -> None:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for row in range(12):
        mask[16 * row, : 40 + 10 * row] = True
    lines = [line for line, _ in centre_lines(mask)]
    assert [round(length(line)) for line in lines] == [39 + 10 * row for row in range(11, 3, -1)]


def test_an_area_gives_its_closed_outline_in_metres() -> None:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[50:150, 80:120] = True
    (line,) = trace(mask, "drivable_area", CONFIG)
    assert line.closed
    low, high = -51.2 + 0.512 * np.array([80.5, 50.5]), -51.2 + 0.512 * np.array([119.5, 149.5])
    corners = [(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])]
    np.testing.assert_allclose(sorted(line.points.tolist()), corners)


def test_rows_run_forward_and_columns_to_the_right() -> None:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[150:190, 100] = True  # ahead of the vehicle, just right of its middle
    (line,) = trace(mask, "divider", CONFIG)
    np.testing.assert_allclose(line.points[:, 0], 0.256, atol=1e-6)
    np.testing.assert_allclose(sorted(line.points[:, 1]), [-51.2 + 0.512 * 150.5, -51.2 + 0.512 * 189.5])


def test_the_same_mask_gives_the_same_polyline() -> None:
    mask = draw(circle(60, 200))
    first, second = centre_lines(mask), centre_lines(mask.copy())
    assert all(np.array_equal(one, two) for (one, _), (two, _) in zip(first, second, strict=True))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_any_mask_gives_finite_lines_within_the_grid(seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((30, 30)) < density
    for points, closed in centre_lines(mask) + outlines(mask):
        assert points.shape[0] >= 2 + closed
        assert points.shape[1] == 2
        assert ((points >= 0) & (points <= 29)).all()


def test_elements_come_with_class_and_score_and_the_drivable_area_last() -> None:
    config = replace(CONFIG, bev_size=SIDE)
    masks = np.stack([draw(np.array([[20, 20], [20, 180]])), draw(np.array([[60, 60], [90, 60]]), 20)])
    result = MapResult(
        masks=torch.from_numpy(masks),
        labels=torch.tensor([0, 1]),
        scores=torch.tensor([1.4, 0.3]),
        drivable=torch.from_numpy(draw(np.array([[100, 20], [100, 180]]), 40)),
        lane=torch.zeros(3, SIDE, SIDE, dtype=torch.bool),
    )
    elements = map_polylines(result, config)
    assert [(element.label, element.line.closed) for element in elements] == [
        ("divider", False),
        ("ped_crossing", True),
        ("drivable_area", True),
    ]
    assert [element.score for element in elements] == pytest.approx([1.0, 0.3, 1.0])
