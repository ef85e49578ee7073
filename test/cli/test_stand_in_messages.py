"""Messages for a Python without ROS: those that the conversions build are those of ROS, byte by byte."""

import subprocess
import sys

import pytest

from opendrivevla_ros.cli.stand_in_messages import message_bytes, message_type
from opendrivevla_ros.datasets.bag_messages import interface_folder, message, serialize

OWN_TYPES = sorted(f"opendrivevla_ros/msg/{path.stem}" for path in interface_folder().glob("*.msg"))


@pytest.mark.parametrize("type_name", OWN_TYPES)
def test_a_message_of_ros_has_the_bytes_of_the_bags_own(type_name: str) -> None:
    import opendrivevla_ros.msg

    ros_message = getattr(opendrivevla_ros.msg, type_name.split("/")[-1])()
    assert message_type(ros_message) == type_name
    assert message_bytes(ros_message) == serialize(message(type_name))


STAND_INS = """
import sys
from opendrivevla_ros.cli.stand_in_messages import install_stand_ins, message_bytes, message_type
for name in ("rclpy", "std_msgs", "geometry_msgs"):
    sys.modules.pop(name, None)
install_stand_ins()
import numpy as np
from geometry_msgs.msg import Pose
from opendrivevla_ros.msg import TrajectoryPoint
from std_msgs.msg import Header
assert "rclpy" not in sys.modules
assert message_type(Header()) == "std_msgs/msg/Header"
assert Pose().orientation.w == 1.0
point = TrajectoryPoint(curvature=0.5, position_covariance=[1.0, 0.0, 0.0, 1.0])
point.pose.position.x = 2.0
print(message_bytes(point).hex())
"""


def test_stand_ins_build_the_messages_that_ros_builds() -> None:
    from opendrivevla_ros.msg import TrajectoryPoint

    point = TrajectoryPoint(curvature=0.5, position_covariance=[1.0, 0.0, 0.0, 1.0])
    point.pose.position.x = 2.0
    run = subprocess.run([sys.executable, "-c", STAND_INS], capture_output=True, text=True, check=True, timeout=60)
    assert bytes.fromhex(run.stdout.strip()) == message_bytes(point)
