"""Messages without ROS against ROS's own."""

import numpy as np
import pytest

from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.datasets.bag_messages import (
    deserialize,
    duration,
    interface_folder,
    message,
    nanoseconds,
    pose,
    serialize,
    time,
    typestore,
)

OWN_TYPES = sorted(f"opendrivevla_ros/msg/{path.stem}" for path in interface_folder().glob("*.msg"))


@pytest.mark.parametrize("type_name", [*OWN_TYPES, "nav_msgs/msg/Odometry", "visualization_msgs/msg/Marker"])
def test_an_empty_message_survives_its_bytes(type_name: str) -> None:
    empty = message(type_name)
    assert serialize(deserialize(serialize(empty), type_name)) == serialize(empty)


@pytest.mark.parametrize("type_name", OWN_TYPES)
def test_ros_reads_the_same_message(type_name: str) -> None:
    import opendrivevla_ros.msg
    from rclpy.serialization import deserialize_message

    ros_class = getattr(opendrivevla_ros.msg, type_name.split("/")[-1])
    assert deserialize_message(serialize(message(type_name)), ros_class) == ros_class()


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(TypeError, match=r"DrivingCommand has no field \['words'\]"):
        message("opendrivevla_ros/msg/DrivingCommand", words="left")


@pytest.mark.parametrize("stamp_ns", [0, 1, 10**9, 1_700_000_000_123_456_789])
def test_stamps_keep_their_nanoseconds(stamp_ns: int) -> None:
    assert nanoseconds(time(stamp_ns)) == stamp_ns
    assert nanoseconds(duration(stamp_ns)) == stamp_ns


def test_a_pose_carries_position_and_heading() -> None:
    built = pose(planar_transform(3.0, -4.0, 0.5))
    assert (built.position.x, built.position.y) == (3.0, -4.0)
    assert 2 * np.arctan2(built.orientation.z, built.orientation.w) == pytest.approx(0.5)


def test_numbers_in_sequences_become_arrays_of_the_right_type() -> None:
    status = message("opendrivevla_ros/msg/PlanStatus", stage_times=[0.5], token_counts=[3])
    assert status.stage_times.dtype == np.float64
    assert status.token_counts.dtype == np.uint32
    assert typestore().types["opendrivevla_ros/msg/PlanStatus"].MISSING_CAMERA == 1
