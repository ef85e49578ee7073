"""Listens to everything that the inference node says and keeps it, for a bag and for figures."""

import importlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opendrivevla_ros.datasets.bag_storage import BagMessage

OUTPUTS = {
    "output/trajectory": "opendrivevla_ros/msg/PlannedTrajectory",
    "output/path": "nav_msgs/msg/Path",
    "output/reasoning": "opendrivevla_ros/msg/Reasoning",
    "output/agents": "opendrivevla_ros/msg/DetectedAgentArray",
    "output/map_elements": "opendrivevla_ros/msg/MapElementArray",
    "output/plan_status": "opendrivevla_ros/msg/PlanStatus",
    "output/status": "opendrivevla_ros/msg/VlaStatus",
    "debug/markers": "visualization_msgs/msg/MarkerArray",
    "debug/overview/compressed": "sensor_msgs/msg/CompressedImage",
}
STAMPED_PLANS = ("output/trajectory", "output/path", "output/reasoning", "output/agents", "output/map_elements")


@dataclass
class Heard:
    """What was heard so far. messages: all, received at bag time. latencies: from a plan's stamp, by output, s.

    stage_times: seconds by stage. stamps: of the messages that belong to a plan, by output, nanoseconds.
    """

    messages: list[BagMessage] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    stamps: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    stage_times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refusals: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    overviews: list[bytes] = field(default_factory=list)
    status: Any = None
    newest_plan: float = 0.0  # steady clock, seconds


class Listener:
    """Subscribes to all outputs of the node `vla_node` and to /clock. Call `spin_until` to listen.

    ends_ns: bag time at which the inputs stop; the refusals after it mean nothing and are not counted.
    """

    def __init__(self, node: Any, *, ends_ns: int, vla_node: str = "/vla_node") -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from rclpy.serialization import deserialize_message
        from rosgraph_msgs.msg import Clock

        self.heard = Heard()
        self.ends_ns = ends_ns
        self._deserialize = deserialize_message
        self._clock_ns, self._clock_heard = 0, 0.0
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        node.create_subscription(Clock, "/clock", self._on_clock, 10)
        for name, type_name in OUTPUTS.items():
            package, kind, message_name = type_name.split("/")
            message_class = getattr(importlib.import_module(f"{package}.{kind}"), message_name)
            durable = name == "output/status"
            profile = QoSProfile(
                depth=1 if durable else 50,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if durable else DurabilityPolicy.VOLATILE,
            )
            topic = f"{vla_node}/{name}"

            def note(data: bytes, name: str = name, kind: type = message_class, topic: str = topic) -> None:
                self._note(name, topic, data, kind)

            node.create_subscription(message_class, topic, note, profile, raw=True)

    @property
    def bag_time_ns(self) -> int:
        """The time of the bag that is being played, between ticks of its clock too; 0 before the first."""
        if not self._clock_ns:
            return 0
        return self._clock_ns + round((time.monotonic() - self._clock_heard) * 1e9)

    def spin_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Listens until `done` says so; False when that took longer than the timeout."""
        until = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > until:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def _on_clock(self, message: Any) -> None:
        self._clock_ns = message.clock.sec * 10**9 + message.clock.nanosec
        self._clock_heard = time.monotonic()

    def _note(self, name: str, topic: str, data: bytes, message_class: type) -> None:
        heard, now_ns = self.heard, self.bag_time_ns
        message = self._deserialize(data, message_class)
        if name == "output/status":
            heard.status = message
        if not now_ns:
            return  # the bag does not run yet
        heard.counts[name] += 1
        heard.messages.append(BagMessage(topic, OUTPUTS[name], now_ns, data))
        if name in STAMPED_PLANS:
            stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            heard.stamps[name].append(stamp_ns)
            heard.latencies[name].append((now_ns - stamp_ns) / 1e9)
            heard.newest_plan = time.monotonic()
        elif name == "output/plan_status":
            self._note_outcome(message, now_ns)
        elif name == "debug/overview/compressed":
            heard.overviews.append(bytes(message.data))

    def _note_outcome(self, message: Any, now_ns: int) -> None:
        if message.result == message.OK:
            for stage, seconds in zip(message.stages, message.stage_times, strict=True):
                self.heard.stage_times[stage].append(float(seconds))
        elif now_ns <= self.ends_ns:
            check = message.failed_checks[0] if message.failed_checks else str(message.result)
            self.heard.refusals[check] += 1
            self.heard.reasons[check] = message.reason
