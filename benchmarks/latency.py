"""From the anchor picture's stamp to the published plan, with a policy that costs nothing: p50 and p95.

`python benchmarks/latency.py` starts a vla_node process and sends it six 1600x900 JPEGs at 12 Hz, all of one stamp,
and odometry at 100 Hz. "published" is the age that plan_status reports, "received" the age of the trajectory when
this process has it.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from opendrivevla_ros.msg import PlannedTrajectory, PlanStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from streams import CAMERA_HZ, HEIGHT, WIDTH, Vehicle, domain

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.ros.conversions import nanoseconds
from opendrivevla_ros.sensing.calibration import save_rig
from opendrivevla_ros.world.rig import nuscenes_rig

SECONDS = 10.0
WARM_UP_S = 2.0
LIMIT_MS = 80.0


def main() -> None:
    ros_domain = domain()
    with tempfile.TemporaryDirectory() as folder:
        rig_file = Path(folder) / "rig.yaml"
        save_rig(nuscenes_rig(WIDTH, HEIGHT), rig_file)
        node_process = subprocess.Popen(
            [
                *(sys.executable, "-m", "opendrivevla_ros.ros.vla_node", "--ros-args"),
                *("-p", f"rig_file:={rig_file}", "-p", "policy:=constant_velocity"),
            ],
            env=os.environ | {"ROS_DOMAIN_ID": str(ros_domain)},
            start_new_session=True,
        )
        try:
            published, received, sent = measure(ros_domain)
        finally:
            node_process.send_signal(signal.SIGINT)
            node_process.wait(timeout=30)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(published)} plans of {sent} rounds of six {WIDTH}x{HEIGHT} JPEGs; limit of p95: {LIMIT_MS:.0f} ms")
    for name, ages in (("published", published), ("received", received)):
        p50, p95 = np.percentile(ages, [50, 95]) * 1e3
        print(f"stamp to {name} plan: p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    print(f"vla_node used {usage.ru_utime + usage.ru_stime:.1f} s of processor time in all")


def measure(ros_domain: int) -> tuple[list[float], list[float], int]:
    """Ages (s) of plans at publication and at reception, and the rounds of pictures sent meanwhile."""
    rclpy.init(domain_id=ros_domain)
    node = Node("vehicle")
    published: list[float] = []
    received: list[float] = []

    def on_status(message: PlanStatus) -> None:
        if message.result == PlanStatus.OK:
            published.append(message.age)

    def on_plan(message: PlannedTrajectory) -> None:
        received.append((node.get_clock().now().nanoseconds - nanoseconds(message.header.stamp)) / 1e9)

    node.create_subscription(PlanStatus, "/vla_node/output/plan_status", on_status, 10)
    node.create_subscription(PlannedTrajectory, "/vla_node/output/trajectory", on_plan, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin_for(seconds: float) -> None:
        end = time.monotonic() + seconds
        executor.spin_once(timeout_sec=max(0.0, seconds))
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=max(0.0, end - time.monotonic()))

    vehicle = Vehicle(node, "/vla_node/input", raw=False)
    vehicle.wait_for_readers()
    vehicle.drive(WARM_UP_S, between=spin_for)
    published.clear()
    received.clear()
    pictures, _ = vehicle.drive(SECONDS, between=spin_for)
    spin_for(1.0 / CAMERA_HZ)
    rclpy.shutdown()
    return published, received, pictures // len(CAMERA_NAMES)


if __name__ == "__main__":
    main()
