"""Which topic of a bag is which input."""

from pathlib import Path

import pytest

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.datasets.bag_messages import message
from opendrivevla_ros.datasets.bag_topics import find_input_topics, read_topic_map
from opendrivevla_ros.datasets.bags import BagError, BagReader, BagWriter


def bag_of(path: Path, topics: dict[str, str]) -> BagReader:
    """A bag with one empty message on each topic, types given by topic."""
    with BagWriter(path) as bag:
        for topic, type_name in topics.items():
            bag.write(topic, message(type_name), 1)
    return BagReader(path)


def nuscenes_topics() -> dict[str, str]:
    topics = {"/odom": "nav_msgs/msg/Odometry", "/imu": "sensor_msgs/msg/Imu"}
    for camera in CAMERA_NAMES:
        topics[f"/{camera.upper()}/image_rect_compressed"] = "sensor_msgs/msg/CompressedImage"
        topics[f"/{camera.upper()}/camera_info"] = "sensor_msgs/msg/CameraInfo"
    return topics


def test_topics_named_after_nuscenes_cameras_are_found_by_type_and_name(tmp_path: Path) -> None:
    with bag_of(tmp_path / "bag", nuscenes_topics()) as bag:
        inputs = find_input_topics(bag)
    assert inputs.by_input["cam_front/image"].name == "/CAM_FRONT/image_rect_compressed"
    assert inputs.by_input["cam_front_left/camera_info"].name == "/CAM_FRONT_LEFT/camera_info"
    assert inputs.by_input["odometry"].name == "/odom"
    assert inputs.by_input["imu"].name == "/imu"
    assert "command" not in inputs.by_input
    assert inputs.node_topics("/vla_node")["/CAM_BACK/image_rect_compressed"] == (
        "/vla_node/input/cam_back/image/compressed"
    )


def test_a_compressed_image_comes_before_the_raw_one_of_the_same_camera(tmp_path: Path) -> None:
    topics = nuscenes_topics() | {"/CAM_FRONT/image_rect": "sensor_msgs/msg/Image"}
    with bag_of(tmp_path / "bag", topics) as bag:
        assert find_input_topics(bag).by_input["cam_front/image"].name == "/CAM_FRONT/image_rect_compressed"


def test_the_nodes_own_input_comes_before_others_of_its_type(tmp_path: Path) -> None:
    topics = nuscenes_topics() | {"/vla_node/input/odometry": "nav_msgs/msg/Odometry"}
    with bag_of(tmp_path / "bag", topics) as bag:
        assert find_input_topics(bag).by_input["odometry"].name == "/vla_node/input/odometry"


def test_missing_topics_are_named_together_with_those_that_are_there(tmp_path: Path) -> None:
    topics = nuscenes_topics()
    del topics["/odom"], topics["/CAM_BACK/image_rect_compressed"]
    with (
        bag_of(tmp_path / "bag", topics) as bag,
        pytest.raises(BagError, match=r"bag lacks cam_back/image, odometry \(it has /CAM_BACK/camera_info.*--topics"),
    ):
        find_input_topics(bag)


def test_two_candidates_are_an_error_until_a_topic_map_decides(tmp_path: Path) -> None:
    topics = nuscenes_topics() | {"/wheel_odom": "nav_msgs/msg/Odometry"}
    (tmp_path / "map.yaml").write_text("odometry: /wheel_odom\n")
    with bag_of(tmp_path / "bag", topics) as bag:
        with pytest.raises(BagError, match=r"/odom and /wheel_odom .* could each be odometry"):
            find_input_topics(bag)
        chosen = find_input_topics(bag, read_topic_map(tmp_path / "map.yaml"))
    assert chosen.by_input["odometry"].name == "/wheel_odom"


@pytest.mark.parametrize(
    ("topic", "complaint"), [("/nothing", "lacks topic /nothing"), ("/imu", "is a sensor_msgs/msg/Imu")]
)
def test_a_topic_map_that_does_not_fit_the_bag_is_refused(tmp_path: Path, topic: str, complaint: str) -> None:
    with bag_of(tmp_path / "bag", nuscenes_topics()) as bag, pytest.raises(BagError, match=complaint):
        find_input_topics(bag, {"odometry": topic})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("[1, 2]", "not a mapping"), ("odometrie: /odom", r"unknown inputs \['odometrie'\]"), ("a: [", "cannot be read")],
)
def test_a_broken_topic_map_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(BagError, match=complaint):
        read_topic_map(tmp_path / "map.yaml")
