"""A real nuScenes keyframe through export, devkit and loader: the conventions of frames, boxes and velocities."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from opendrivevla_ros.core.ego import DrivingCommand, EgoState
from opendrivevla_ros.core.geometry import apply, invert, planar_transform, wrap_angle, yaw_of
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraCalibration, CameraRig
from opendrivevla_ros.datasets.nuscenes_export import ExportBox, ExportFrame, ExportScene, export_nuscenes
from opendrivevla_ros.datasets.nuscenes_map import RoadLayers
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes

CATEGORIES = {
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
    "construction_vehicle": "vehicle.construction",
    "bus": "vehicle.bus.rigid",
}
STEP_S = 0.5


@pytest.fixture(scope="module")
def keyframe(keyframe_folder: Path) -> dict:
    return json.loads((keyframe_folder / "frame.json").read_text())


@pytest.fixture(scope="module")
def root(keyframe: dict, keyframe_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keyframe, and once more half a second later with everything moved on by its velocity, where it has one."""
    ego, lidar_to_base = np.array(keyframe["ego_to_global"]), np.array(keyframe["lidar_to_ego"])
    lidar = ego @ lidar_to_base
    cameras, pictures, poses = [], [], []
    for name in CAMERA_NAMES:
        camera = keyframe["cameras"][name.upper()]
        to_base = np.array(camera["camera_to_ego"])
        size = (camera["width"], camera["height"])
        cameras.append(CameraCalibration(name, *size, np.array(camera["intrinsic"]), to_base))
        image = cv2.imread(str(keyframe_folder / camera["image"]))
        pictures.append(CameraFrame(name, camera["timestamp_us"] * 1000, image))
        poses.append(lidar @ invert(np.array(camera["lidar_to_camera"])) @ invert(to_base))
    boxes, later = [], []
    for index, entry in enumerate(keyframe["boxes"]):
        x, y, z, length, width, height, yaw = entry["box"]
        category = CATEGORIES.get(entry["class"], f"vehicle.{entry['class']}")
        heading = yaw_of(lidar @ planar_transform(0, 0, yaw))
        box = ExportBox(str(index), category, apply(lidar, [x, y, z]), np.array([length, width, height]), heading)
        boxes.append(box)
        if np.isnan(entry["velocity"]).any():  # seen in this keyframe only
            continue
        moved = lidar[:3, :3] @ [*entry["velocity"], 0.0] * STEP_S
        later.append(replace(box, position=box.position + moved))
    stamp_ns = keyframe["timestamp_us"] * 1000
    still = EgoState(stamp_ns, ego, np.zeros(3), np.zeros(3), np.zeros(3), np.zeros((4, 3)))
    rig = CameraRig(tuple(cameras), lidar_to_base)
    first = Observation(stamp_ns, tuple(pictures), rig, still, DrivingCommand())
    shift_ns = round(STEP_S * 1e9)
    second = replace(
        first,
        stamp_ns=stamp_ns + shift_ns,
        frames=tuple(replace(picture, stamp_ns=picture.stamp_ns + shift_ns) for picture in pictures),
    )
    frames = [ExportFrame(first, np.stack(poses), tuple(boxes)), ExportFrame(second, np.stack(poses), tuple(later))]
    x, y = ego[:2, 3]
    square = np.array([[x - 40, y - 40], [x + 40, y - 40], [x + 40, y + 40], [x - 40, y + 40]])
    root = tmp_path_factory.mktemp("keyframe") / "set"
    export_nuscenes(root, [ExportScene(keyframe["scene"], "real", RoadLayers((square,)), frames)])
    return root


def test_the_devkit_sees_the_boxes_in_each_camera_as_the_original_does(root: Path, keyframe: dict) -> None:
    from nuscenes import NuScenes
    from nuscenes.utils.geometry_utils import BoxVisibility

    nusc = NuScenes("v1.0-world", str(root), verbose=False)
    centres = np.array([entry["box"][:3] for entry in keyframe["boxes"]])
    for name, camera in keyframe["cameras"].items():
        _, boxes, _ = nusc.get_sample_data(nusc.sample[0]["data"][name], box_vis_level=BoxVisibility.NONE)
        expected = apply(np.array(camera["lidar_to_camera"]), centres)
        np.testing.assert_allclose([box.center for box in boxes], expected, atol=1e-3)


def test_labels_are_those_of_the_original_in_base_link(root: Path, keyframe: dict) -> None:
    sample = NuScenesScenes(root, "v1.0-world", image_size=(400, 224))["scene-2001"][0]
    to_base = np.array(keyframe["lidar_to_ego"])
    assert sample.agents is not None
    assert len(sample.agents) == len(keyframe["boxes"]) == 65
    for label, entry in zip(sample.agents, keyframe["boxes"], strict=True):
        x, y, z, length, width, height, yaw = entry["box"]
        assert label.label == entry["class"]
        np.testing.assert_allclose(label.position, apply(to_base, [x, y, z]), atol=1e-3)
        np.testing.assert_allclose(label.size, [length, width, height])
        turned = float(wrap_angle(label.yaw - yaw_of(to_base @ planar_transform(0, 0, yaw))))
        assert turned == pytest.approx(0, abs=0.003)  # the road is not quite level
        velocity = to_base[:3, :3] @ [*entry["velocity"], 0.0]
        assert label.velocity_known == np.isfinite(velocity).all()
        if not label.velocity_known:
            velocity = np.zeros(3)
        np.testing.assert_allclose(label.velocity, velocity[:2], atol=1e-3)
    assert sample.observation.frames[0].image.shape == (225, 400, 3)
    assert sample.observation.rig.problems() == []
