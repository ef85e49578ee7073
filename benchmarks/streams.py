"""What a vehicle sends, for benchmarks: six 1600x900 cameras at 12 Hz and odometry at 100 Hz, of made-up content."""

import array
import os
import time
from collections.abc import Callable

import cv2
import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from opendrivevla_ros.core.rig import CAMERA_NAMES

WIDTH, HEIGHT = 1600, 900
CAMERA_HZ, ODOMETRY_HZ = 12, 100
SPEED = 8.0
VARIANTS = 12  # different pictures, so that no camera seems frozen
DISCOVERY_TIMEOUT_S = 30.0


def domain() -> int:
    """A ROS domain id of this process's own."""
    return 1 + os.getpid() % 100


def profile(depth: int) -> QoSProfile:
    """Best effort, as camera drivers send."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def pictures() -> list[np.ndarray]:
    """Blocks of random colours under fine noise, which a JPEG of quality 72 takes about 130 KB for."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(VARIANTS):
        blocks = rng.integers(0, 256, (HEIGHT // 30, WIDTH // 30, 3), np.uint8)
        noise = rng.integers(0, 5, (HEIGHT, WIDTH, 3), np.uint8)
        found.append(cv2.add(cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), noise))
    return found


def image_messages(*, raw: bool) -> list[Image] | list[CompressedImage]:
    if raw:
        return [
            Image(
                height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH, data=array.array("B", picture.tobytes())
            )
            for picture in pictures()
        ]
    encoded = [cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 72])[1] for picture in pictures()]
    return [CompressedImage(format="jpeg", data=array.array("B", jpeg.tobytes())) for jpeg in encoded]


class Vehicle:
    """Publishes all streams of one vehicle under a prefix, stamped with the time of sending."""

    def __init__(self, node: Node, prefix: str, *, raw: bool) -> None:
        self._node = node
        self._messages = image_messages(raw=raw)
        kind, suffix = (Image, "") if raw else (CompressedImage, "/compressed")
        self._cameras = {
            camera: node.create_publisher(kind, f"{prefix}/{camera}/image{suffix}", profile(2))
            for camera in CAMERA_NAMES
        }
        self._odometry = node.create_publisher(Odometry, f"{prefix}/odometry", profile(100))
        self._epoch = time.monotonic()

    def wait_for_readers(self) -> None:
        """Until every stream has one."""
        everything: list[Publisher] = [*self._cameras.values(), self._odometry]
        end = time.monotonic() + DISCOVERY_TIMEOUT_S
        while not all(publisher.get_subscription_count() for publisher in everything):
            if time.monotonic() > end:
                raise RuntimeError(f"no reader for all streams after {DISCOVERY_TIMEOUT_S} s")
            time.sleep(0.05)

    def drive(self, seconds: float, between: Callable[[float], None] = time.sleep) -> tuple[int, int]:
        """Sends for so long; returns the numbers of pictures and of odometry samples. between: waits, in seconds."""
        odometry = Odometry(child_frame_id="base_link")
        odometry.header.frame_id = "odom"
        odometry.pose.pose.orientation.w = 1.0
        odometry.twist.twist.linear.x = SPEED
        start, sent, rounds, samples = time.monotonic(), 0, 0, 0
        while rounds < seconds * CAMERA_HZ:
            due = start + min(rounds / CAMERA_HZ, samples / ODOMETRY_HZ)
            between(max(0.0, due - time.monotonic()))
            now = time.monotonic() - start
            if now >= samples / ODOMETRY_HZ:
                odometry.header.stamp = self._node.get_clock().now().to_msg()
                odometry.pose.pose.position.x = SPEED * (time.monotonic() - self._epoch)
                self._odometry.publish(odometry)
                samples += 1
            if now >= rounds / CAMERA_HZ:
                stamp = self._node.get_clock().now().to_msg()
                for camera, publisher in self._cameras.items():
                    message = self._messages[rounds % VARIANTS]
                    message.header.stamp, message.header.frame_id = stamp, camera
                    publisher.publish(message)
                    sent += 1
                rounds += 1
        return sent, samples
