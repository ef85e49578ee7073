"""Observations for tests: six nominal cameras on a nuScenes-like vehicle that drives straight ahead."""

import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command, DrivingCommand, EgoState
from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.plan import PlanError, PlanFailure
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.core.rig import CAMERA_NAMES, NOMINAL_YAW_DEGREES, CameraCalibration, CameraRig

OPTICAL_TO_BODY = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def make_rig(width: int = 1600, height: int = 900) -> CameraRig:
    cameras = []
    for name in CAMERA_NAMES:
        pose = planar_transform(0.0, 0.0, np.radians(NOMINAL_YAW_DEGREES[name]))
        pose[:3, 3] = pose[:3, :3] @ [1.0, 0.0, 0.0] + [0.7, 0.0, 1.55]
        pose[:3, :3] = pose[:3, :3] @ OPTICAL_TO_BODY
        focal = width * (0.5 if name == "cam_back" else 0.79)
        intrinsics = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2 + 20], [0.0, 0.0, 1.0]])
        cameras.append(CameraCalibration(name, width, height, intrinsics, pose))
    return CameraRig(tuple(cameras))


def make_ego(seconds: float = 0.0, speed: float = 5.0) -> EgoState:
    return EgoState(
        stamp_ns=int(seconds * 1e9),
        base_to_world=planar_transform(100.0 + speed * seconds, 50.0, 0.0),
        velocity=np.array([speed, 0.0, 0.0]),
        acceleration=np.zeros(3),
        angular_velocity=np.zeros(3),
        history=np.array([[-2.0, 0, 0], [-1.5, 0, 0], [-1.0, 0, 0], [-0.5, 0, 0]]) * [speed, 1, 1],
    )


def make_observation(
    seconds: float = 0.0, *, speed: float = 5.0, rig: CameraRig | None = None, size: tuple[int, int] = (400, 225)
) -> Observation:
    rig = rig or make_rig()
    random = np.random.default_rng(int(seconds * 1000))
    coarse = random.integers(0, 256, (6, 9, 16, 3), dtype=np.uint8)
    images = coarse.repeat(-(-size[1] // 9), axis=1).repeat(-(-size[0] // 16), axis=2)[:, : size[1], : size[0]]
    stamp_ns = int(seconds * 1e9)
    pictures = tuple(
        CameraFrame(name, stamp_ns, np.ascontiguousarray(image))
        for name, image in zip(CAMERA_NAMES, images, strict=True)
    )
    return Observation(
        stamp_ns, pictures, rig, make_ego(seconds, speed), DrivingCommand(Command.KEEP_FORWARD, "", False)
    )


def refused(policy: DrivingPolicy, observation: Observation, failure: PlanFailure, message: str) -> None:
    """It gets no plan, for this reason, in one line."""
    with pytest.raises(PlanError, match=message) as caught:
        policy.plan(observation)
    assert caught.value.failure is failure
    assert "\n" not in str(caught.value)
