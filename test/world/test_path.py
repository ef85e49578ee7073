"""Paths by arc length: closest points, lengths and poses."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opendrivevla_ros.world.path import Path, PathBundle
from opendrivevla_ros.world.road_shapes import Piece, connection, reference_line

radii = st.floats(12.0, 200.0)
angles = st.floats(0.3, 1.8).flatmap(lambda angle: st.sampled_from([angle, -angle]))


def road(radius: float, angle: float) -> Path:
    return Path.through(reference_line((3.0, -2.0, 0.7), [Piece(40.0), Piece.bend(radius, angle), Piece(40.0)]))


@given(radii, angles)
@settings(max_examples=40, deadline=None)
def test_the_length_of_a_path_is_that_of_its_pieces(radius: float, angle: float) -> None:
    assert road(radius, angle).length == pytest.approx(80.0 + radius * abs(angle), rel=2e-3)


@given(radii, angles)
@settings(max_examples=40, deadline=None)
def test_a_bend_turns_by_its_angle_with_its_radius(radius: float, angle: float) -> None:
    path = road(radius, angle)
    assert path.heading[-1] - path.heading[0] == pytest.approx(angle, abs=0.02)
    assert np.abs(path.curvature).max() < 1.1 / radius
    if radius * abs(angle) > 12.0:  # a shorter bend is all transition
        assert np.abs(path.curvature).max() > 0.9 / radius


@given(radii, angles, st.floats(0.02, 0.98), st.floats(-4.0, 4.0))
@settings(max_examples=100, deadline=None)
def test_projecting_a_pose_gives_its_place_on_the_path_again(
    radius: float, angle: float, share: float, lateral: float
) -> None:
    path = road(radius, angle)
    x, y, heading = path.pose(share * path.length, lateral)
    s, offset = path.project([[x, y]])
    assert s[0] == pytest.approx(share * path.length, abs=0.12)
    assert offset[0] == pytest.approx(lateral, abs=0.04)
    near_s, near_offset, near_heading = path.locate(x, y, share * path.length + 1.5)
    assert (near_s, near_offset, near_heading) == pytest.approx((s[0], offset[0], heading), abs=0.06)


@given(radii, angles, st.tuples(st.floats(-30.0, 160.0), st.floats(-60.0, 60.0)))
@settings(max_examples=60, deadline=None)
def test_the_lateral_offset_of_a_point_beside_a_path_is_its_distance(
    radius: float, angle: float, point: tuple[float, float]
) -> None:
    path = road(radius, angle)
    dense = np.concatenate([path.points[:-1] + share * np.diff(path.points, axis=0) for share in np.arange(0, 1, 0.1)])
    distances = np.hypot(*(dense - point).T)
    s, lateral = path.project([point])
    closest = np.flatnonzero(distances < distances.min() + 0.05)
    unambiguous = closest.max() - closest.min() < 3 or distances.min() < 8.0
    if 1.0 < s[0] < path.length - 1.0 and distances.min() < 0.8 * radius and unambiguous:
        assert abs(lateral[0]) == pytest.approx(distances.min(), abs=0.1)


def test_a_bundle_places_points_on_each_path_as_that_path_alone_does() -> None:
    paths = [road(30.0, 1.0), road(120.0, -0.5), Path.through([[0.0, 0.0], [10.0, 5.0]])]
    points = np.random.default_rng(0).uniform(-20.0, 80.0, (15, 2))
    s, lateral, _ = PathBundle(paths).project(points)
    for row, path in enumerate(paths):
        alone_s, alone_lateral = path.project(points)
        np.testing.assert_allclose(s[row], alone_s, atol=1e-9)
        np.testing.assert_allclose(lateral[row], alone_lateral, atol=1e-9)


def test_points_beyond_the_ends_lie_on_the_straight_continuation() -> None:
    path = Path.through([[0.0, 0.0], [20.0, 0.0]])
    s, lateral = path.project([[-5.0, 1.0], [26.0, -2.0]])
    np.testing.assert_allclose(s, [-5.0, 26.0], atol=1e-9)
    np.testing.assert_allclose(lateral, [1.0, -2.0], atol=1e-9)
    assert path.pose(25.0, 1.0) == pytest.approx((25.0, 1.0, 0.0))


def test_a_connection_leaves_and_arrives_along_the_headings() -> None:
    points = connection(np.zeros(2), 0.0, np.array([9.0, 9.0]), np.pi / 2)
    path = Path.through(points)
    np.testing.assert_allclose([path.heading[0], path.heading[-1]], [0.0, np.pi / 2], atol=0.02)
    radius = np.hypot(points[:, 0], points[:, 1] - 9.0)
    np.testing.assert_allclose(radius, 9.0, atol=0.05)


def test_a_path_needs_two_points_apart() -> None:
    with pytest.raises(ValueError, match="at least two points"):
        Path.through([[1.0, 1.0], [1.05, 1.0]])


@given(st.lists(st.tuples(*[st.floats(-0.3, 0.3)] * 2), min_size=1, max_size=8))
@example([(0.15, 0.0), (0.15, 0.0)])
@settings(max_examples=100, deadline=None)
def test_a_path_goes_through_points_that_stray_and_jump_back(steps: list[tuple[float, float]]) -> None:
    points = np.concatenate([np.cumsum([(0.0, 0.0), *steps], axis=0), [[0.0, 0.0], [5.0, 0.0]]])
    path = Path.through(points)
    assert np.isfinite(path.points).all()
    np.testing.assert_allclose(path.points[[0, -1]], points[[0, -1]], atol=1e-9)


@pytest.mark.parametrize("radius", [11.0, 201.0])
def test_a_bend_outside_the_allowed_radii_is_refused(radius: float) -> None:
    with pytest.raises(ValueError, match="give 12 to 200 m"):
        Piece.bend(radius, 0.5)
