"""Six cameras and odometry between two processes: frames that arrive of those sent, by transport.

`python benchmarks/transport.py` prints the table. Everything stays on this machine: "default segment" is the shipped
loopback profile with Fast DDS's own shared-memory segment (512 KiB) and queue.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from streams import Vehicle, domain, profile

from opendrivevla_ros.core.rig import CAMERA_NAMES

LOOPBACK = Path(__file__).parent.parent / "config" / "dds" / "loopback.xml"


def send(seconds: float, raw: bool) -> None:
    """The vehicle's process."""
    rclpy.init()
    vehicle = Vehicle(Node("vehicle"), "/bench", raw=raw)
    vehicle.wait_for_readers()
    print(json.dumps(vehicle.drive(seconds)))
    rclpy.shutdown()


def receive(raw: bool) -> None:
    """The reader's process: counts until it is interrupted, then prints what came as JSON."""
    rclpy.init()
    node = Node("reader")
    ages: list[float] = []
    samples = [0]

    def on_image(message: Image | CompressedImage) -> None:
        stamp = message.header.stamp
        ages.append(node.get_clock().now().nanoseconds / 1e9 - stamp.sec - stamp.nanosec / 1e9)

    def on_odometry(message: Odometry) -> None:
        samples[0] += 1

    kind, suffix = (Image, "") if raw else (CompressedImage, "/compressed")
    for camera in CAMERA_NAMES:
        node.create_subscription(kind, f"/bench/{camera}/image{suffix}", on_image, profile(2))
    node.create_subscription(Odometry, "/bench/odometry", on_odometry, profile(100))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        executor.spin()
    print(json.dumps({"ages": ages, "samples": samples[0]}))


def measure(seconds: float, raw: bool, dds_profile: Path, ros_domain: int) -> tuple[list[float], int, int, int]:
    """Ages (s) of the pictures that came, pictures sent, and odometry samples received and sent."""
    environment = os.environ | {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(dds_profile),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        "ROS_DOMAIN_ID": str(ros_domain),
    }
    command = [sys.executable, __file__, *(["--raw"] if raw else [])]
    reader = subprocess.Popen(
        [*command, "--receive"], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        sender = [*command, "--send", str(seconds)]
        sent = json.loads(subprocess.run(sender, env=environment, check=True, stdout=subprocess.PIPE).stdout)
        reader.send_signal(signal.SIGINT)  # by now it has taken what has arrived
        result = json.loads(reader.communicate(timeout=30)[0])
    finally:
        reader.kill()
    return result["ages"], sent[0], result["samples"], sent[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--send", type=float)
    parser.add_argument("--receive", action="store_true")
    parser.add_argument("--raw", action="store_true")
    arguments = parser.parse_args()
    if arguments.receive:
        receive(arguments.raw)
        return
    if arguments.send:
        send(arguments.send, arguments.raw)
        return
    with tempfile.TemporaryDirectory() as folder:
        default = Path(folder) / "default_segment.xml"
        default.write_text(re.sub(r"\s*<(segment_size|port_queue_capacity)>.*", "", LOOPBACK.read_text()))
        cases = (
            ("JPEG, shipped profile", 10.0, False, LOOPBACK),
            ("raw, shipped profile", 5.0, True, LOOPBACK),
            ("raw, default segment", 5.0, True, default),
        )
        print(f"{'transport':<24}{'pictures':>16}{'odometry':>14}{'p50 [ms]':>10}{'p95 [ms]':>10}")
        for number, (name, seconds, raw, dds_profile) in enumerate(cases):
            ros_domain = 1 + (domain() + number) % 100
            ages, sent, samples, sampled = measure(seconds, raw, dds_profile, ros_domain)
            p50, p95 = np.percentile(ages, [50, 95]) * 1e3 if ages else (float("nan"), float("nan"))
            pictures = f"{len(ages)} of {sent}"
            print(f"{name:<24}{pictures:>16}{f'{samples} of {sampled}':>14}{p50:>10.1f}{p95:>10.1f}")


if __name__ == "__main__":
    main()
