"""The expert's drive as a bag: everything that the node takes, true to the world, and the same for the same seed."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bag_topics import find_input_topics
from opendrivevla_ros.datasets.bags import RIG_FILE, BagReader
from opendrivevla_ros.datasets.world_bag import write_world_bag
from opendrivevla_ros.sensing.calibration import load_rig
from opendrivevla_ros.world.rig import STAMP_OFFSETS_NS

SIZE = (160, 90)


@pytest.fixture(scope="module")
def bag_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "bag"
    write_world_bag(path, duration_s=1.0, image_size=SIZE)
    return path


def messages(path: Path, topic: str) -> list:
    with BagReader(path) as bag:
        return [deserialize(entry.data, entry.type) for entry in bag.messages([f"/vla_node/input/{topic}"])]


def test_it_has_every_input_of_the_node_at_its_rate(bag_path: Path) -> None:
    with BagReader(bag_path) as bag:
        counts = {name: topic.count for name, topic in find_input_topics(bag).by_input.items()}
        assert bag.topics["/vla_node/input/command"].latched
    cameras = {f"{camera}/{kind}": 11 for camera in CAMERA_NAMES for kind in ("image", "camera_info")}
    assert counts == cameras | {"odometry": 101, "command": 2}


def test_cameras_are_triggered_one_after_another_as_in_nuscenes(bag_path: Path) -> None:
    anchors = [nanoseconds(message.header.stamp) for message in messages(bag_path, "cam_front/image/compressed")]
    for camera, offset_ns in STAMP_OFFSETS_NS.items():
        stamps = [nanoseconds(m.header.stamp) for m in messages(bag_path, f"{camera}/image/compressed")]
        assert np.subtract(stamps, anchors).tolist() == [offset_ns] * 11


def test_pictures_are_jpegs_of_the_rigs_size_that_change(bag_path: Path) -> None:
    rig = load_rig(bag_path / RIG_FILE)
    assert rig.problems() == []
    pictures = [cv2.imdecode(m.data, cv2.IMREAD_COLOR) for m in messages(bag_path, "cam_front/image/compressed")]
    assert {picture.shape for picture in pictures} == {(rig["cam_front"].height, rig["cam_front"].width, 3)}
    assert all(np.abs(a.astype(int) - b).mean() > 0.2 for a, b in pairwise(pictures))


def test_odometry_moves_as_fast_as_it_says(bag_path: Path) -> None:
    samples = messages(bag_path, "odometry")
    stamps = [nanoseconds(m.header.stamp) for m in samples]
    assert np.diff(stamps).tolist() == [10_000_000] * 100
    positions = np.array([[m.pose.pose.position.x, m.pose.pose.position.y] for m in samples])
    speeds = np.linalg.norm(np.diff(positions, axis=0), axis=1) / 0.01
    told = np.array([m.twist.twist.linear.x for m in samples])
    np.testing.assert_allclose(told[:-1], speeds, atol=0.3)
    assert {m.child_frame_id for m in samples} == {"base_link"}


def test_a_turn_is_announced_by_its_command(tmp_path: Path) -> None:
    write_world_bag(tmp_path / "turn", family="junction_left", seed=49, duration_s=5.0, image_size=(64, 36))
    assert [message.command for message in messages(tmp_path / "turn", "command")][-1] == 1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_drive(bag_path: Path, tmp_path: Path) -> None:
    write_world_bag(tmp_path / "same", duration_s=1.0, image_size=SIZE)
    write_world_bag(tmp_path / "other", duration_s=1.0, image_size=SIZE, seed=1)
    with BagReader(bag_path) as first, BagReader(tmp_path / "same") as same:
        assert list(first.messages()) == list(same.messages())
    topic = "cam_front/image/compressed"
    assert bytes(messages(tmp_path / "other", topic)[0].data) != bytes(messages(bag_path, topic)[0].data)
