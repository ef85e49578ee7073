"""`odv play`: what another process receives of a bag."""

import importlib
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from opendrivevla_ros.cli.processes import Process
from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bags import BagReader

Start = Callable[..., Process]
TOPICS = {
    "/vla_node/input/odometry": "nav_msgs/msg/Odometry",
    "/vla_node/input/command": "opendrivevla_ros/msg/DrivingCommand",
    **{f"/vla_node/input/{camera}/image/compressed": "sensor_msgs/msg/CompressedImage" for camera in CAMERA_NAMES},
    **{f"/vla_node/input/{camera}/camera_info": "sensor_msgs/msg/CameraInfo" for camera in CAMERA_NAMES},
}
TIMEOUT_S = 60.0


class Receiver:
    """Keeps the stamps of what comes on each topic, and of /clock, nanoseconds."""

    def __init__(self, node: Any, topics: dict[str, str] = TOPICS) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy

        self.node = node
        self.stamps: dict[str, list[int]] = defaultdict(list)
        profile = QoSProfile(depth=500, reliability=ReliabilityPolicy.RELIABLE)
        for topic, type_name in {**topics, "/clock": "rosgraph_msgs/msg/Clock"}.items():
            package, kind, name = type_name.split("/")
            message_class = getattr(importlib.import_module(f"{package}.{kind}"), name)

            def note(message: Any, topic: str = topic) -> None:
                stamp = message.clock if topic == "/clock" else message.header.stamp
                self.stamps[topic].append(stamp.sec * 10**9 + stamp.nanosec)

            node.create_subscription(message_class, topic, note, profile)

    def spin_until(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + TIMEOUT_S
        while not done():
            assert time.monotonic() < until, {topic: len(stamps) for topic, stamps in self.stamps.items()}
            self.node.executor.spin_once(timeout_sec=0.05)


def recorded_stamps(bag: Path, topic: str) -> list[int]:
    with BagReader(bag) as reader:
        return [nanoseconds(deserialize(m.data, m.type).header.stamp) for m in reader.messages([topic])]


def test_every_message_arrives_once_in_order_with_the_clock_beside_it(
    street_bag: Path, ros_node: Any, start: Start
) -> None:
    receiver = Receiver(ros_node)
    player = start("cli.main", "play", str(street_bag), "--wait", "20", "--clock-readers", "1")
    receiver.spin_until(lambda: player.exit_code is not None)
    assert player.exit_code == 0, player.log.read_text()
    for topic in TOPICS:
        assert receiver.stamps[topic] == recorded_stamps(street_bag, topic), topic
    clock = receiver.stamps["/clock"]
    assert clock == sorted(clock)
    with BagReader(street_bag) as bag:
        assert clock[0] == bag.start_ns
        assert bag.end_ns - clock[-1] < 20_000_000
    assert len(clock) == pytest.approx(100 * 2.55, abs=5)


def test_a_loop_starts_again_at_the_offset_and_ctrl_c_ends_it_with_exit_code_0(
    street_bag: Path, ros_node: Any, start: Start
) -> None:
    topic = "/vla_node/input/odometry"
    receiver = Receiver(ros_node, {topic: TOPICS[topic], "/vla_node/input/command": TOPICS["/vla_node/input/command"]})
    player = start("cli.main", "play", str(street_bag), "--loop", "--start-offset", "2", "--rate", "2")

    def rounds() -> int:
        return sum(later < earlier for earlier, later in pairwise(receiver.stamps[topic]))

    receiver.spin_until(lambda: rounds() >= 3 and player.exit_code is None)
    assert player.stop() == 0, player.log.read_text()
    with BagReader(street_bag) as bag:
        assert min(receiver.stamps[topic]) >= bag.start_ns + 2 * 10**9 - 10**7
    assert receiver.stamps["/vla_node/input/command"], "a latched command from before the offset is sent all the same"
    assert "Traceback" not in player.log.read_text()


def test_bag_time_runs_at_the_given_rate(street_bag: Path, ros_node: Any, start: Start) -> None:
    receiver = Receiver(ros_node, {})
    start("cli.main", "play", str(street_bag), "--rate", "0.5", "--loop")
    receiver.spin_until(lambda: len(receiver.stamps["/clock"]) >= 1)
    first, began = receiver.stamps["/clock"][-1], time.monotonic()
    receiver.spin_until(lambda: receiver.stamps["/clock"][-1] - first >= 500_000_000)
    assert time.monotonic() - began == pytest.approx(1.0, rel=0.25)


def test_inputs_found_in_any_bag_go_to_the_node_under_its_own_names(
    street_bag: Path, ros_node: Any, start: Start
) -> None:
    receiver = Receiver(ros_node, {"/planner/input/odometry": "nav_msgs/msg/Odometry"})
    start("cli.main", "play", str(street_bag), "--topics", "auto", "--node", "/planner", "--loop")
    receiver.spin_until(lambda: len(receiver.stamps["/planner/input/odometry"]) > 10)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["{bag}", "--start-offset", "60"], "start offset 60.0 s lies beyond the 2.5"),
        (["{bag}", "--topics", "nothing.yaml"], "topic map nothing.yaml cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(
    street_bag: Path,
    odv: Callable[..., subprocess.CompletedProcess[str]],
    arguments: list[str],
    complaint: str,
) -> None:
    run = odv("play", *(argument.format(bag=street_bag) for argument in arguments))
    assert run.returncode == 1
    assert complaint in run.stderr
    assert run.stderr.count("\n") == 1
