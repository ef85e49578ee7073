"""A real nuScenes keyframe through the policy's frames and through a whole plan."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from opendrivevla_ros.core.ego import DrivingCommand, EgoState
from opendrivevla_ros.core.geometry import apply
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraCalibration, CameraRig
from opendrivevla_ros.policies.opendrivevla import frames
from opendrivevla_ros.policies.registry import load_policy

SPEED = 9.24  # m/s, from the ego poses at the six camera stamps, which the keyframe's lidar_to_camera holds


@pytest.fixture(scope="module")
def keyframe(keyframe_folder: Path) -> dict:
    return json.loads((keyframe_folder / "frame.json").read_text())


@pytest.fixture(scope="module")
def observation(keyframe: dict, keyframe_folder: Path) -> Observation:
    cameras, pictures = [], []
    for name in CAMERA_NAMES:
        camera = keyframe["cameras"][name.upper()]
        cameras.append(
            CameraCalibration(
                name,
                camera["width"],
                camera["height"],
                np.array(camera["intrinsic"]),
                np.array(camera["camera_to_ego"]),
            )
        )
        image = cv2.imread(str(keyframe_folder / camera["image"]))
        pictures.append(CameraFrame(name, camera["timestamp_us"] * 1000, image))
    ego = EgoState(
        stamp_ns=keyframe["timestamp_us"] * 1000,
        base_to_world=np.array(keyframe["ego_to_global"]),
        velocity=np.array([SPEED, -0.08, 0.09]),
        acceleration=np.zeros(3),
        angular_velocity=np.zeros(3),
        history=np.array([[-2.0, 0, 0], [-1.5, 0, 0], [-1.0, 0, 0], [-0.5, 0, 0]]) * [SPEED, 1, 1],
    )
    rig = CameraRig(tuple(cameras), np.array(keyframe["lidar_to_ego"]))
    return Observation(ego.stamp_ns, tuple(pictures), rig, ego, DrivingCommand())


def pixel_error(observation: Observation, keyframe: dict) -> float:
    """Largest distance in pixels between annotated objects here and through the keyframe's own matrices."""
    centres = np.array([box["box"][:3] for box in keyframe["boxes"]])
    worst = 0.0
    for name, matrix in zip(CAMERA_NAMES, frames.lidar_to_image(observation, (1600, 900)), strict=True):
        camera = keyframe["cameras"][name.upper()]
        expected = apply(np.array(camera["lidar_to_camera"]), centres) @ np.array(camera["intrinsic"]).T
        found = apply(matrix, centres)
        pixels, expected_pixels = found[:, :2] / found[:, 2:], expected[:, :2] / expected[:, 2:]
        in_view = (expected[:, 2] > 4) & (np.abs(expected_pixels - [800, 450]) < [800, 450]).all(1)
        distances = np.linalg.norm(pixels - expected_pixels, axis=1)[in_view]
        worst = max([worst, *distances.tolist()])
    return worst


def test_annotated_objects_meet_their_pixels_with_the_motion_between_stamps_taken_out(observation, keyframe) -> None:
    assert pixel_error(observation, keyframe) < 2  # turn rates are not in the file
    unmoving = replace(observation, ego=replace(observation.ego, velocity=np.zeros(3)))
    assert pixel_error(unmoving, keyframe) > 5


def test_a_real_keyframe_gives_a_whole_plan(observation: Observation) -> None:
    plan = load_policy("opendrivevla-small-random", samples=0).plan(observation)
    assert len(plan.trajectory) == 6
    assert np.isfinite(plan.trajectory.xy).all()
