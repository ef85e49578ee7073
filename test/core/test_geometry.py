"""Rigid transforms, angles, interpolation and box corners."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from opendrivevla_ros.core import geometry

lengths = st.floats(-500.0, 500.0)
angles = st.floats(-np.pi, np.pi)
poses = st.builds(
    lambda x, y, z, roll, pitch, yaw: geometry.transform(
        [x, y, z], Rotation.from_euler("xyz", [roll, pitch, yaw]).as_quat()
    ),
    *[lengths] * 3,
    *[angles] * 3,
)


@given(poses)
def test_a_transform_times_its_inverse_is_the_identity(pose):
    np.testing.assert_allclose(pose @ geometry.invert(pose), np.eye(4), atol=1e-9)


@given(poses, poses)
def test_inverting_a_stack_equals_inverting_each(first, second):
    stack = geometry.invert(np.stack([first, second]))
    np.testing.assert_array_equal(stack[1], geometry.invert(second))


@given(poses, st.tuples(lengths, lengths, lengths))
def test_applying_keeps_distances(pose, point):
    moved = geometry.apply(pose, [point, [0.0, 0.0, 0.0]])
    assert np.linalg.norm(moved[0] - moved[1]) == pytest.approx(np.linalg.norm(point), abs=1e-9)


@given(poses)
def test_quaternion_and_back_is_the_same_pose(pose):
    again = geometry.transform(pose[:3, 3], geometry.quaternion(pose))
    np.testing.assert_allclose(again, pose, atol=1e-9)


@given(st.floats(-1e4, 1e4))
def test_wrapped_angles_point_the_same_way_and_stay_within_half_a_turn(angle):
    wrapped = float(geometry.wrap_angle(angle))
    assert -np.pi <= wrapped <= np.pi
    assert np.cos(wrapped) == pytest.approx(np.cos(angle), abs=1e-6)
    assert np.sin(wrapped) == pytest.approx(np.sin(angle), abs=1e-6)


@given(lengths, lengths, angles)
def test_planar_transform_has_its_yaw_and_place(x, y, yaw):
    pose = geometry.planar_transform(x, y, yaw)
    assert float(geometry.wrap_angle(geometry.yaw_of(pose) - yaw)) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_array_equal(pose[:3, 3], [x, y, 0.0])


@given(poses, poses)
def test_interpolation_meets_both_ends_and_halves_the_way(first, second):
    np.testing.assert_allclose(geometry.interpolate(first, second, 0.0), first, atol=1e-7)
    np.testing.assert_allclose(geometry.interpolate(first, second, 1.0), second, atol=1e-7)
    middle = geometry.interpolate(first, second, 0.5)
    np.testing.assert_allclose(middle[:3, 3], (first[:3, 3] + second[:3, 3]) / 2, atol=1e-9)
    np.testing.assert_allclose(middle[:3, :3] @ middle[:3, :3].T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("bad", [([np.nan, 0, 0], [0, 0, 0, 1]), ([0, 0, 0], [0, 0, np.inf, 1]), ([0, 0, 0], [0] * 4)])
def test_poses_that_are_not_poses_are_refused(bad):
    with pytest.raises(ValueError, match=r"finite|zero norm"):
        geometry.transform(*bad)


def test_nuscenes_lidar_looks_along_the_vehicle():
    forward, right = geometry.apply(geometry.NUSCENES_LIDAR_TO_BASE, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(forward - [0.9437, 0.0, 1.8402], [1.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(right - [0.9437, 0.0, 1.8402], [0.0, -1.0, 0.0], atol=1e-12)


def test_box_corners_lie_half_a_size_away_and_turn_with_the_heading():
    corners = geometry.box_corners([10.0, 2.0, 1.0], [4.0, 2.0, 1.5], np.pi / 2)
    np.testing.assert_allclose(corners[0], [9.0, 4.0, 0.25], atol=1e-12)  # front left, bottom
    np.testing.assert_allclose(corners[6], [11.0, 0.0, 1.75], atol=1e-12)  # rear right, top
    np.testing.assert_allclose(corners.mean(axis=0), [10.0, 2.0, 1.0], atol=1e-12)
