"""The camera rig: projection and the checks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.geometry import apply
from opendrivevla_ros.core.rig import CAMERA_NAMES, NOMINAL_YAW_DEGREES, CameraCalibration, CameraRig


def camera(name: str, yaw_degrees: float | None = None) -> CameraCalibration:
    yaw = np.radians(NOMINAL_YAW_DEGREES[name] if yaw_degrees is None else yaw_degrees)
    forward, left = [np.cos(yaw), np.sin(yaw), 0.0], [-np.sin(yaw), np.cos(yaw), 0.0]
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([-np.array(left), [0.0, 0.0, -1.0], forward])
    pose[:3, 3] = [1.5 * np.cos(yaw), 0.5 * np.sin(yaw), 1.5]
    intrinsics = np.array([[1266.0, 0.0, 816.0], [0.0, 1266.0, 491.0], [0.0, 0.0, 1.0]])
    return CameraCalibration(name, 1600, 900, intrinsics, pose)


RIG = CameraRig(tuple(camera(name) for name in CAMERA_NAMES))


def changed(**changes: object) -> CameraRig:
    return replace(RIG, cameras=(replace(RIG.cameras[0], **changes), *RIG.cameras[1:]))


@given(st.floats(0.0, 1600.0), st.floats(0.0, 900.0), st.floats(0.5, 100.0), st.sampled_from(CAMERA_NAMES))
def test_a_point_on_a_pixels_ray_projects_to_that_pixel(u, v, depth, name):
    calibration = RIG[name]
    point = apply(calibration.camera_to_base, np.linalg.inv(calibration.intrinsics) @ [u * depth, v * depth, depth])
    pixel, found_depth = calibration.project(point)
    np.testing.assert_allclose(pixel, [u, v], atol=1e-6)
    assert float(found_depth) == pytest.approx(depth)


def test_points_behind_a_camera_have_negative_depth():
    assert RIG["cam_front"].project([-10.0, 0.0, 1.5])[1] < 0
    assert RIG["cam_back"].project([-10.0, 0.0, 1.5])[1] > 0


def test_the_nominal_rig_has_no_problems():
    assert RIG.problems() == []


def test_two_swapped_cameras_are_both_named():
    left, right = (
        replace(RIG["cam_back_left"], name="cam_back_right"),
        replace(RIG["cam_back_right"], name="cam_back_left"),
    )
    rig = replace(RIG, cameras=(*RIG.cameras[:4], right, left))
    assert [problem.camera for problem in rig.problems()] == ["cam_back_left", "cam_back_right"]
    assert "swapped" in str(rig.problems()[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, "image size 0x900"),
        ({"intrinsics": np.zeros((3, 3))}, "intrinsics"),
        ({"intrinsics": np.array([[9.0, 1.0, 5.0], [0.0, 9.0, 5.0], [0.0, 0.0, 1.0]])}, "no skew"),
        ({"intrinsics": np.array([[9.0, 0.0, 5000.0], [0.0, 9.0, 5.0], [0.0, 0.0, 1.0]])}, "principal point"),
        ({"camera_to_base": np.full((4, 4), np.nan)}, "extrinsics"),
        ({"camera_to_base": np.diag([1.0, 1.0, 2.0, 1.0])}, "orthonormal"),
    ],
)
def test_each_thing_that_is_wrong_with_a_camera_is_named(changes, words):
    problems = changed(**changes).problems()
    assert len(problems) == 1
    assert words in str(problems[0])
    assert str(problems[0]).startswith("cam_front:")


def test_a_rig_in_another_order_is_refused():
    problems = replace(RIG, cameras=RIG.cameras[::-1]).problems()
    assert problems[0].camera == "rig"


def test_asking_for_an_unknown_camera_names_those_there_are():
    with pytest.raises(KeyError, match=r"cam_roof.*cam_front"):
        RIG["cam_roof"]
