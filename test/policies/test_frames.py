"""The one conversion between base_link and the model's lidar frame."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.ego import DrivingCommand, EgoState
from opendrivevla_ros.core.geometry import (
    NUSCENES_LIDAR_TO_BASE,
    apply,
    invert,
    planar_transform,
    transform,
    wrap_angle,
)
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CAMERA_NAMES, NOMINAL_YAW_DEGREES, CameraCalibration, CameraRig
from opendrivevla_ros.policies.opendrivevla import frames

MOUNT = NUSCENES_LIDAR_TO_BASE
angles = st.floats(-3.1, 3.1)
metres = st.floats(-50, 50)


def ego(**changes: object) -> EgoState:
    state = EgoState(
        stamp_ns=0,
        base_to_world=transform([400.0, 1100.0, 2.0], [0.0, 0.0, np.sin(0.4), np.cos(0.4)]),
        velocity=np.array([8.0, 0.1, 0.0]),
        acceleration=np.array([0.5, -0.2, 0.0]),
        angular_velocity=np.array([0.0, 0.0, 0.2]),
        history=np.array([[-16.0, 0.0, 0.0], [-12.0, 0.0, 0.0], [-8.0, 0.0, 0.0], [-4.0, 0.0, 0.0]]),
    )
    return replace(state, **changes)


def observation(state: EgoState, stamps_ns: tuple[int, ...] = (0,) * 6) -> Observation:
    cameras, pictures = [], []
    for name, stamp_ns in zip(CAMERA_NAMES, stamps_ns, strict=True):
        yaw = np.radians(NOMINAL_YAW_DEGREES[name])
        looks = planar_transform(0.0, 0.0, yaw)
        looks[:3, :3] = looks[:3, :3] @ np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        looks[:3, 3] = [1.5, 0.3, 1.6]
        intrinsics = np.array([[1266.0, 0.0, 800.0], [0.0, 1266.0, 450.0], [0.0, 0.0, 1.0]])
        cameras.append(CameraCalibration(name, 1600, 900, intrinsics, looks))
        pictures.append(CameraFrame(name, stamp_ns, np.zeros((9, 16, 3), np.uint8)))
    return Observation(0, tuple(pictures), CameraRig(tuple(cameras)), state, DrivingCommand())


@given(metres, metres, st.floats(-2, 3), st.tuples(*[st.floats(0.2, 12)] * 3), angles, metres, metres)
def test_a_box_goes_to_the_network_and_back_unchanged(x, y, z, size, yaw, vx, vy) -> None:
    box = frames.box_to_lidar([x, y, z], size, yaw, [vx, vy], MOUNT)
    position, back_size, back_yaw, velocity = frames.box_to_base(box, MOUNT)
    np.testing.assert_allclose(position, [x, y, z], atol=1e-9)
    np.testing.assert_allclose(back_size, size)
    np.testing.assert_allclose(wrap_angle(back_yaw - yaw), 0, atol=1e-9)
    np.testing.assert_allclose(velocity, [vx, vy], atol=1e-9)


def test_a_car_ahead_that_drives_away_has_heading_zero_and_forward_velocity() -> None:
    # lidar frame: ten metres ahead is y = 10; heading pi/2 is stored as -pi/2 - pi/2
    box = [0.0, 10.0, -1.8402, 1.9, 4.5, 1.6, -np.pi, 0.0, 7.0]
    position, size, yaw, velocity = frames.box_to_base(box, MOUNT)
    np.testing.assert_allclose(position, [10.9437, 0.0, 0.8], atol=1e-9)
    np.testing.assert_allclose(size, [4.5, 1.9, 1.6])
    assert yaw == pytest.approx(0.0)
    np.testing.assert_allclose(velocity, [7.0, 0.0], atol=1e-9)


@given(st.floats(0, 15), st.floats(-0.12, 0.12))
def test_a_driven_arc_survives_the_way_through_the_lidar_origin(speed: float, curvature: float) -> None:
    times = np.arange(1, 7) * 0.5
    yaw = speed * curvature * times
    along = speed * times * np.sinc(yaw / np.pi)
    across = speed * times * np.sin(yaw / 2) * np.sinc(yaw / (2 * np.pi))
    poses = np.column_stack([along, across, yaw])
    planned = frames.base_path_to_lidar(poses, MOUNT)
    # straight chords between half-second points are all that is lost
    sagitta = np.abs(curvature) * (speed * 0.5) ** 2 / 8
    np.testing.assert_allclose(frames.lidar_path_to_base(planned, MOUNT), poses[:, :2], atol=0.02 + sagitta)


def test_a_standing_vehicle_plans_to_stay_at_its_own_origin() -> None:
    np.testing.assert_allclose(frames.lidar_path_to_base(np.zeros((6, 2)), MOUNT), np.zeros((6, 2)), atol=1e-12)


def test_a_plan_straight_back_keeps_the_heading() -> None:
    waypoints = np.column_stack([np.full(6, 0.01), -0.5 * np.arange(1, 7)])
    path = frames.lidar_path_to_base(waypoints, MOUNT)
    np.testing.assert_allclose(path[:, 0], -0.5 * np.arange(1, 7), atol=1e-9)
    assert np.abs(path[:, 1]).max() < 0.05


def test_a_turn_does_not_leave_the_rear_axle_behind_by_the_lever_arm() -> None:
    # after a quarter turn of radius 10 m, a constant offset would be wrong by 1.3 m
    yaw = np.linspace(0, np.pi / 2, 7)[1:]
    poses = np.column_stack([10 * np.sin(yaw), 10 * (1 - np.cos(yaw)), yaw])
    back = frames.lidar_path_to_base(frames.base_path_to_lidar(poses, MOUNT), MOUNT)
    assert np.linalg.norm(back - poses[:, :2], axis=1).max() < 0.1


@given(metres, metres)
def test_map_lines_use_the_same_turn_and_offset_as_points(x: float, y: float) -> None:
    point = frames.line_to_base([[x, y]], MOUNT)[0]
    np.testing.assert_allclose(apply(invert(MOUNT), [*point, MOUNT[2, 3]])[:2], [x, y], atol=1e-9)


def test_covariance_turns_with_the_axes() -> None:
    sideways = np.array([[[4.0, 0.5], [0.5, 1.0]]])  # wide along lidar x, which is base_link -y
    np.testing.assert_allclose(frames.covariance_to_base(sideways, MOUNT), [[[1.0, -0.5], [-0.5, 4.0]]])


@given(st.floats(3, 40), st.floats(-0.5, 0.5), st.floats(-1.5, 1.5))
def test_a_lidar_point_meets_the_pixel_that_the_calibration_gives(distance: float, side: float, height: float) -> None:
    seen = observation(ego())
    for camera, matrix in zip(seen.rig.cameras, frames.lidar_to_image(seen, (224, 126)), strict=True):
        point_camera = np.array([side, height, distance])
        point_base = apply(camera.camera_to_base, point_camera)
        u, v, depth, _ = matrix @ [*apply(invert(MOUNT), point_base), 1.0]
        pixels, expected_depth = camera.project(point_base)
        assert depth == pytest.approx(expected_depth)
        np.testing.assert_allclose([u / depth / 224, v / depth / 126], pixels / [1600, 900], atol=1e-9)


def test_a_picture_taken_later_sees_the_world_nearer() -> None:
    later = observation(ego(angular_velocity=np.zeros(3)), (50_000_000,) * 6)
    ahead = apply(invert(MOUNT), [21.5, 0.3, 1.6])
    depth_then = (frames.lidar_to_image(observation(ego()), (1600, 900))[0] @ [*ahead, 1.0])[2]
    depth_later = (frames.lidar_to_image(later, (1600, 900))[0] @ [*ahead, 1.0])[2]
    assert depth_then - depth_later == pytest.approx(8.0 * 0.05)


def test_a_blank_picture_is_not_moved_in_time() -> None:
    seen = observation(ego(), (-900_000_000,) * 6)
    blank = replace(seen, frames=tuple(replace(frame, blank=True) for frame in seen.frames))
    expected = frames.lidar_to_image(observation(ego()), (1600, 900))
    np.testing.assert_allclose(frames.lidar_to_image(blank, (1600, 900)), expected)


@given(st.floats(-1, 1), st.floats(-15, 15), st.floats(-2, 2))
def test_motion_at_constant_twist_equals_small_steps(yaw_rate: float, vx: float, vy: float) -> None:
    state = ego(velocity=np.array([vx, vy, 0.0]), angular_velocity=np.array([0.0, 0.0, yaw_rate]))
    pose = np.eye(4)
    for _ in range(100):
        pose = pose @ planar_transform(vx * 0.001, vy * 0.001, yaw_rate * 0.001)
    np.testing.assert_allclose(frames.moved(state, 0.1), pose, atol=3e-3)


def test_the_can_bus_vector_holds_the_published_numbers_in_the_published_order() -> None:
    state = ego()
    numbers = frames.can_bus(state, np.array([390.0, 1090.0, 0.0]), scalar_quaternion=True)
    yaw = 0.8
    np.testing.assert_allclose(numbers[0:3], [10.0, 10.0, 2.0])
    np.testing.assert_allclose(numbers[3:7], np.cos(yaw / 2))
    np.testing.assert_allclose(numbers[7:10], [0.5, -0.2, 9.81])
    np.testing.assert_allclose(numbers[10:13], [0.0, 0.0, 0.2])
    np.testing.assert_allclose(numbers[13:16], [8.0, 0.1, 0.0])
    np.testing.assert_allclose(numbers[16:], [yaw, np.degrees(yaw)])
    clean = frames.can_bus(state, np.zeros(3), scalar_quaternion=False)
    np.testing.assert_allclose(clean[3:7], [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)], atol=1e-12)


@given(angles)
def test_the_can_bus_yaw_is_never_negative(yaw: float) -> None:
    numbers = frames.can_bus(ego(base_to_world=planar_transform(0, 0, yaw)), np.zeros(3), scalar_quaternion=True)
    assert 0 <= numbers[16] <= 2 * np.pi
    np.testing.assert_allclose(wrap_angle(numbers[16] - yaw), 0, atol=1e-9)


def test_lidar_points_reach_the_world_by_row_vectors() -> None:
    state, origin = ego(), np.array([400.0, 1100.0, 0.0])
    rotation, translation = frames.lidar_to_global(state, MOUNT, origin)
    point = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(
        point @ rotation + translation + origin, apply(state.base_to_world @ MOUNT, point), atol=1e-9
    )
