"""Overlap of oriented boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.boxes import corners, overlaps
from opendrivevla_ros.core.geometry import Array

boxes = st.tuples(
    st.floats(-6, 6), st.floats(-6, 6), st.floats(-3.2, 3.2), st.floats(0.5, 8.0), st.floats(0.5, 3.0)
).map(np.array)


def inside(points: Array, box: Array) -> Array:
    dx, dy = points[:, 0] - box[0], points[:, 1] - box[1]
    along = dx * np.cos(box[2]) + dy * np.sin(box[2])
    across = dy * np.cos(box[2]) - dx * np.sin(box[2])
    return (np.abs(along) < box[3] / 2 - 1e-6) & (np.abs(across) < box[4] / 2 - 1e-6)


@given(boxes, boxes)
def test_boxes_overlap_when_they_share_a_point(first: Array, second: Array) -> None:
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 25), np.linspace(-0.5, 0.5, 25)), axis=-1).reshape(-1, 2)
    local = grid * first[3:5]
    cosine, sine = np.cos(first[2]), np.sin(first[2])
    points = first[:2] + np.column_stack(
        [local[:, 0] * cosine - local[:, 1] * sine, local[:, 0] * sine + local[:, 1] * cosine]
    )
    if inside(points, second).any():
        assert overlaps(first, second[None])[0]
    assert overlaps(first, second[None])[0] == overlaps(second, first[None])[0]


@given(boxes, boxes, st.floats(-3.0, 3.0))
def test_overlap_does_not_depend_on_the_place_of_the_origin(first: Array, second: Array, shift: float) -> None:
    move = np.array([shift, -shift, 0.0, 0.0, 0.0])
    grown, shrunk = np.array([0, 0, 0, 1e-6, 1e-6]), np.array([0, 0, 0, -1e-6, -1e-6])
    if overlaps(first + shrunk, (second + shrunk)[None])[0]:
        assert overlaps(first + grown + move, (second + grown + move)[None])[0]


def test_boxes_far_apart_or_side_by_side_do_not_overlap() -> None:
    box = np.array([0.0, 0.0, 0.0, 4.0, 2.0])
    others = np.array([[0.0, 2.001, 0.0, 4.0, 2.0], [4.0, 0.0, 0.3, 4.0, 2.0], [100.0, 0.0, 0.0, 4.0, 2.0]])
    np.testing.assert_array_equal(overlaps(box, others), [False, True, False])


def test_corners_go_round_from_the_front_left() -> None:
    np.testing.assert_allclose(
        corners(np.array([[1.0, 2.0, np.pi / 2, 4.0, 2.0]]))[0], [[0, 4], [2, 4], [2, 0], [0, 0]], atol=1e-12
    )
