"""Real pictures: a nuScenes keyframe as a bag, through `odv play` and `vla_node`, and its boxes in our projection.

The keyframe's label time is the lidar's; each of its pictures was taken up to 43 ms before, at 9 m/s.
"""

import importlib
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from opendrivevla_ros.cli.processes import Process
from opendrivevla_ros.core.geometry import Array, apply, box_corners, invert
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraCalibration, CameraRig
from opendrivevla_ros.datasets.bag_messages import header, message
from opendrivevla_ros.datasets.bag_observations import BagObservations
from opendrivevla_ros.datasets.bag_topics import find_input_topics
from opendrivevla_ros.datasets.bags import RIG_FILE, BagReader, BagWriter
from opendrivevla_ros.datasets.sensor_messages import camera_info, compressed_image, odometry
from opendrivevla_ros.policies.opendrivevla.frames import lidar_to_image
from opendrivevla_ros.sensing.calibration import load_rig, save_rig

ROUNDS = 30  # 2.5 s at 12 Hz
PERIOD_NS = 83_333_333
INPUTS = "/vla_node/input"
OUTPUTS = {
    "trajectory": "PlannedTrajectory",
    "agents": "DetectedAgentArray",
    "map_elements": "MapElementArray",
    "reasoning": "Reasoning",
    "plan_status": "PlanStatus",
}
SIZE = (1600, 900)
TIMEOUT_S = 120.0


class Keyframe:
    """frame.json, with cameras by this package's names, and times in nanoseconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frame = json.loads((folder / "frame.json").read_text())
        self.cameras = {name: self.frame["cameras"][name.upper()] for name in CAMERA_NAMES}
        self.label_ns = self.frame["timestamp_us"] * 1000
        self.stamps_ns = {name: camera["timestamp_us"] * 1000 for name, camera in self.cameras.items()}
        self.lidar_to_base = np.array(self.frame["lidar_to_ego"])

    @property
    def rig(self) -> CameraRig:
        cameras = [
            CameraCalibration(name, *SIZE, np.array(camera["intrinsic"]), np.array(camera["camera_to_ego"]))
            for name, camera in self.cameras.items()
        ]
        return CameraRig(tuple(cameras), self.lidar_to_base)

    def twist(self) -> tuple[Array, Array]:
        """Linear and angular velocity of the vehicle in base_link: its motion up to the label time, from the poses
        that the raw matrices of the earliest picture imply."""
        name = min(self.stamps_ns, key=lambda camera: self.stamps_ns[camera])
        camera = self.cameras[name]
        to_then = np.array(camera["camera_to_ego"]) @ camera["lidar_to_camera"] @ invert(self.lidar_to_base)
        seconds = (self.label_ns - self.stamps_ns[name]) / 1e9
        return to_then[:3, 3] / seconds, Rotation.from_matrix(to_then[:3, :3]).as_rotvec() / seconds

    def base_to_world(self, stamp_ns: int) -> Array:
        """The vehicle's pose at constant twist, with the labelled pose at the label time."""
        linear, angular = self.twist()
        seconds = (stamp_ns - self.label_ns) / 1e9
        step = np.eye(4)
        step[:3, :3] = Rotation.from_rotvec(angular * seconds).as_matrix()
        step[:3, 3] = Rotation.from_rotvec(angular * seconds / 2).as_matrix() @ linear * seconds
        return np.array(self.frame["ego_to_global"]) @ step

    def box_corners(self) -> list[Array]:
        """The corners [8, 3] of every labelled box in the lidar frame."""
        boxes = (label["box"] for label in self.frame["boxes"])
        return [box_corners(box[:3], box[3:6], box[6]) for box in boxes]

    def write_bag(self, path: Path) -> Path:
        """The keyframe over and over: six JPEG cameras at 12 Hz with their own stamps, odometry at 100 Hz."""
        linear, angular = self.twist()
        entries: list[tuple[int, str, Any]] = []
        for calibration in self.rig.cameras:
            name = calibration.name
            jpeg = (self.folder / self.cameras[name]["image"]).read_bytes()
            for round_ in range(ROUNDS):
                stamp_ns = self.stamps_ns[name] + round_ * PERIOD_NS
                # A comment in the JPEG, for a camera that repeats its bytes is rightly called frozen.
                comment = f"round {round_:03d}".encode()
                data = jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
                picture = compressed_image(data, stamp_ns=stamp_ns, frame=name)
                entries.append((stamp_ns + 20_000_000, f"{INPUTS}/{name}/image/compressed", picture))
                entries.append(
                    (stamp_ns + 19_000_000, f"{INPUTS}/{name}/camera_info", camera_info(calibration, stamp_ns))
                )
        start_ns = min(self.stamps_ns.values()) - 100_000_000
        for step in range(round(ROUNDS * PERIOD_NS / 1e7) + 30):
            stamp_ns = start_ns + step * 10_000_000
            pose = self.base_to_world(stamp_ns)
            sample = odometry(pose, linear=linear, angular=angular, stamp_ns=stamp_ns)
            entries.append((stamp_ns + 1_000_000, f"{INPUTS}/odometry", sample))
        command = message("opendrivevla_ros/msg/DrivingCommand", header=header(start_ns, "base_link"))
        with BagWriter(path) as bag:
            bag.add_topic(f"{INPUTS}/command", command.__msgtype__, latched=True)
            bag.write(f"{INPUTS}/command", command, start_ns)
            for received_ns, topic, instance in sorted(entries, key=lambda entry: entry[:2]):
                bag.write(topic, instance, received_ns)
        save_rig(self.rig, path / RIG_FILE)
        return path


@pytest.fixture(scope="module")
def keyframe(keyframe_folder: Path) -> Keyframe:
    return Keyframe(keyframe_folder)


@pytest.fixture(scope="module")
def keyframe_bag(keyframe: Keyframe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keyframe.write_bag(tmp_path_factory.mktemp("keyframe") / "bag")


def pixels_of(matrix: Array, points: Array) -> tuple[Array, Array]:
    """Pixels [N, 2] and depths [N] of points [N, 3] by a 4x4 (or 3x4) projection."""
    projected = points @ matrix[:3, :3].T + matrix[:3, 3]
    return projected[:, :2] / projected[:, 2:], projected[:, 2]


def in_view(pixels: Array, depths: Array) -> bool:
    """Whether a box is before the camera as a whole, with a corner inside the picture."""
    inside = (pixels >= 0).all(axis=1) & (pixels < SIZE).all(axis=1)
    return bool((depths > 1.0).all() and inside.any())


def test_a_box_lands_where_the_raw_extrinsics_put_it(keyframe: Keyframe, keyframe_bag: Path) -> None:
    rig, worst, seen = load_rig(keyframe_bag / RIG_FILE), 0.0, 0
    for name, camera in keyframe.cameras.items():
        static = np.eye(4)
        static[:3] = (
            np.array(camera["intrinsic"]) @ (invert(np.array(camera["camera_to_ego"])) @ keyframe.lidar_to_base)[:3]
        )
        for corners in keyframe.box_corners():
            expected, depths = pixels_of(static, corners)
            if in_view(expected, depths):
                pixels, _ = rig[name].project(apply(rig.lidar_to_base, corners))
                worst, seen = max(worst, float(np.abs(pixels - expected).max())), seen + 1
    assert seen >= 60
    assert worst < 0.1  # pixels; the file's quaternions have rounded digits


def test_labelled_boxes_land_within_a_pixel_of_their_own_projections_in_moving_pictures(
    keyframe: Keyframe, keyframe_bag: Path
) -> None:
    with BagReader(keyframe_bag) as bag:
        source = BagObservations(bag, find_input_topics(bag), load_rig(keyframe_bag / RIG_FILE), image_size=SIZE)
        observation = next(item for item in source if isinstance(item, Observation))
    assert observation.stamp_ns == keyframe.stamps_ns["cam_front"]
    assert {frame.camera: frame.stamp_ns for frame in observation.frames} == keyframe.stamps_ns
    projections = lidar_to_image(observation, SIZE)
    label_to_t0 = invert(observation.ego.base_to_world) @ np.array(keyframe.frame["ego_to_global"])
    labels_to_lidar = invert(observation.rig.lidar_to_base) @ label_to_t0 @ keyframe.lidar_to_base
    worst, seen = 0.0, 0
    for name, projection in zip(CAMERA_NAMES, projections, strict=True):
        camera = keyframe.cameras[name]
        raw = np.eye(4)
        raw[:3] = np.array(camera["intrinsic"]) @ np.array(camera["lidar_to_camera"])[:3]
        for corners in keyframe.box_corners():
            expected, depths = pixels_of(raw, corners)
            if in_view(expected, depths):
                pixels, _ = pixels_of(projection @ labels_to_lidar, corners)
                worst, seen = max(worst, float(np.abs(pixels - expected).max())), seen + 1
    assert seen >= 60
    assert worst < 1.0


def test_a_real_keyframe_comes_back_as_plans_agents_and_map_elements_of_its_anchor_stamps(
    keyframe: Keyframe, keyframe_bag: Path, ros_node: Any, start: Callable[..., Process]
) -> None:
    from rclpy.qos import DurabilityPolicy, QoSProfile

    own = importlib.import_module("opendrivevla_ros.msg")
    heard: dict[str, list[Any]] = defaultdict(list)
    for name, kind in OUTPUTS.items():
        ros_node.create_subscription(getattr(own, kind), f"/vla_node/output/{name}", heard[name].append, 50)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    ros_node.create_subscription(own.VlaStatus, "/vla_node/output/status", heard["status"].append, latched)

    def spin_until(done: Callable[[], bool]) -> None:
        until = time.monotonic() + TIMEOUT_S
        while not done():
            assert planner.exit_code is None, planner.log.read_text()
            reasons = [status.reason for status in heard["plan_status"]]
            assert time.monotonic() < until, (reasons[-3:], planner.last_words)
            ros_node.executor.spin_once(timeout_sec=0.05)

    parameters = {"policy": "opendrivevla-small-random", "rig_file": keyframe_bag / RIG_FILE, "deadline": 0.0}
    arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    planner = start("ros.vla_node", "--ros-args", *arguments, "-p", "use_sim_time:=true")
    spin_until(lambda: bool(heard["status"]) and heard["status"][-1].state == own.VlaStatus.WAITING)
    player = start("cli.main", "play", str(keyframe_bag), "--wait", "20", "--rate", "0.5")
    spin_until(lambda: player.exit_code is not None)
    spin_until(lambda: bool(heard["trajectory"] and heard["agents"] and heard["map_elements"]))

    assert player.exit_code == 0, player.log.read_text()
    assert heard["status"][-1].trained is False
    anchors = {keyframe.stamps_ns["cam_front"] + round_ * PERIOD_NS for round_ in range(ROUNDS)}
    stamps = {
        name: [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in heard[name]]
        for name in ("trajectory", "agents", "map_elements", "reasoning")
    }
    assert set(stamps["trajectory"]) <= anchors
    assert stamps["agents"] == stamps["map_elements"] == stamps["reasoning"] == stamps["trajectory"]
    for plan in heard["trajectory"]:
        assert plan.header.frame_id == "odom"
        assert len(plan.points) == 6
    skews = {round(status.camera_skew, 4) for status in heard["plan_status"] if status.result == status.OK}
    assert skews == {0.0350}
    assert planner.stop() == 0, planner.log.read_text()
