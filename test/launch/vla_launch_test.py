"""vla.launch.py under launch_testing: ready, plans arrive, Ctrl-C leaves exit code 0."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import launch
import launch_testing
import launch_testing.actions
import launch_testing.asserts
import pytest
import rclpy
from launch.launch_description_sources import PythonLaunchDescriptionSource
from opendrivevla_ros.msg import PlannedTrajectory, VlaStatus

from opendrivevla_ros.datasets.world_bag import write_world_bag

REPOSITORY = Path(__file__).parent.parent.parent
DOMAIN = "97"


@pytest.mark.launch_test
def generate_test_description() -> launch.LaunchDescription:
    os.environ["ROS_DOMAIN_ID"] = DOMAIN
    vla = launch.actions.IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(REPOSITORY / "launch/vla.launch.py")),
        launch_arguments={
            "rviz": "false",
            "policy": "constant_velocity",
            "use_sim_time": "true",
            "rig_file": str(REPOSITORY / "config/rig/world.yaml"),
        }.items(),
    )
    return launch.LaunchDescription([vla, launch_testing.actions.ReadyToTest()])


class TestPlans(unittest.TestCase):
    def setUp(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node("vla_launch_test")
        self.received: list[object] = []

    def tearDown(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown()

    def spin_until_received(self, count: int, seconds: float) -> None:
        deadline = self.node.get_clock().now().nanoseconds + int(seconds * 1e9)
        while len(self.received) < count and self.node.get_clock().now().nanoseconds < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.1)
        assert len(self.received) >= count

    def test_the_node_reports_its_status(self) -> None:
        self.node.create_subscription(VlaStatus, "/vla_node/output/status", self.received.append, 10)
        self.spin_until_received(1, 60.0)

    def test_plans_arrive_from_a_bag(self) -> None:
        self.node.create_subscription(PlannedTrajectory, "/vla_node/output/trajectory", self.received.append, 10)
        with tempfile.TemporaryDirectory() as folder:
            bag = Path(folder) / "bag"
            write_world_bag(bag, duration_s=6.0)
            command = [sys.executable, str(REPOSITORY / "scripts/odv"), "play", str(bag)]
            with subprocess.Popen(command) as player:
                self.spin_until_received(5, 60.0)
                player.wait(timeout=60)


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    def test_ctrl_c_leaves_exit_code_zero(self, proc_info: launch_testing.ProcInfoHandler) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
