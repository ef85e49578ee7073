"""Listens to the inference node, and to what is said beside it, and keeps all of it, for a bag and for figures."""

import importlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
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
    """What was heard so far. messages: all, received at the clock's time.

    latencies: from a plan's stamp to its arrival, by output, s. stage_times: seconds by stage. stamps: of the messages
    that belong to a plan, by output, nanoseconds. words: with the stamp of their plan. newest: message by topic, of
    the other topics.
    """

    messages: list[BagMessage] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    stamps: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    stage_times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refusals: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    overviews: list[bytes] = field(default_factory=list)
    words: list[tuple[int, str]] = field(default_factory=list)
    newest: dict[str, Any] = field(default_factory=dict)
    status: Any = None
    newest_plan: float = 0.0  # steady clock, seconds


class Listener:
    """Subscribes to all outputs of the node `vla_node`, to /clock, and to others. Call `spin_until` to listen.

    others: type by topic. latched: those of them whose last message comes late, too. inputs_ended: to be set when
    nobody feeds the node any more; its refusals then mean nothing and are not counted.
    """

    def __init__(
        self,
        node: Any,
        *,
        vla_node: str = "/vla_node",
        others: Mapping[str, str] | None = None,
        latched: tuple[str, ...] = (),
    ) -> None:
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.serialization import deserialize_message
        from rosgraph_msgs.msg import Clock

        self.heard = Heard()
        self.inputs_ended = False
        self._deserialize = deserialize_message
        self._node = node
        self._clock_ns, self._clock_heard = 0, 0.0
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        node.create_subscription(Clock, "/clock", self._on_clock, 10)
        for name, type_name in OUTPUTS.items():

            def note(data: bytes, kind: type, name: str = name, topic: str = f"{vla_node}/{name}") -> None:
                self._note(name, topic, data, kind)

            self._subscribe(f"{vla_node}/{name}", type_name, name == "output/status", note)
        for topic, type_name in (others or {}).items():

            def keep(data: bytes, kind: type, topic: str = topic, type_name: str = type_name) -> None:
                self.heard.messages.append(BagMessage(topic, type_name, self.time_ns, data))
                self.heard.newest[topic] = self._deserialize(data, kind)

            self._subscribe(topic, type_name, topic in latched, keep)

    def _subscribe(self, topic: str, type_name: str, latched: bool, note: Callable[[bytes, type], None]) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        package, kind, message_name = type_name.split("/")
        message_class = getattr(importlib.import_module(f"{package}.{kind}"), message_name)
        profile = QoSProfile(
            depth=1 if latched else 1000,  # of odometry, seconds in which a busy machine lets this process wait
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

        def on_bytes(data: bytes) -> None:
            note(data, message_class)

        self._node.create_subscription(message_class, topic, on_bytes, profile, raw=True)

    @property
    def time_ns(self) -> int:
        """The clock's time, between its ticks too; 0 before the first."""
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
        heard, now_ns = self.heard, self.time_ns
        message = self._deserialize(data, message_class)
        if name == "output/status":
            heard.status = message
        if not now_ns:
            return  # time does not run yet
        if name == "output/reasoning" and not message.is_final:
            return  # a thought so far is no outcome
        heard.counts[name] += 1
        heard.messages.append(BagMessage(topic, OUTPUTS[name], now_ns, data))
        if name in STAMPED_PLANS:
            stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            heard.stamps[name].append(stamp_ns)
            heard.latencies[name].append((now_ns - stamp_ns) / 1e9)
            heard.newest_plan = time.monotonic()
            if name == "output/reasoning":
                heard.words.append((stamp_ns, message.text))
        elif name == "output/plan_status":
            self._note_outcome(message)
        elif name == "debug/overview/compressed":
            heard.overviews.append(bytes(message.data))

    def _note_outcome(self, message: Any) -> None:
        if message.result == message.OK:
            for stage, seconds in zip(message.stages, message.stage_times, strict=True):
                self.heard.stage_times[stage].append(float(seconds))
        elif not self.inputs_ended:
            check = message.failed_checks[0] if message.failed_checks else str(message.result)
            self.heard.refusals[check] += 1
            self.heard.reasons[check] = message.reason
