"""Publishes a bag through a node in the bag's own rhythm, with /clock; messages go out as the recorded bytes."""

import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from opendrivevla_ros.datasets.bag_storage import BagMessage, BagTopic
from opendrivevla_ros.datasets.bags import BagError, BagReader

QUEUE_DEPTH = 10
MAX_SLEEP_S = 0.05  # so that a wait can be broken off
FLUSH_TIMEOUT_S = 2.0


@dataclass
class PlayResult:
    """What went out: messages by published topic, rounds of the bag, and how late the latest message was (s)."""

    counts: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    latest_s: float = 0.0


class _Schedule:
    """When bag time comes in real time, counted from one start, so that no delay adds up."""

    def __init__(self, start_ns: int, rate: float) -> None:
        self._start_ns, self._rate = start_ns, rate
        self._started = time.monotonic()

    def wait_until(self, stamp_ns: int, stopped: Callable[[], bool]) -> float:
        """Waits for a bag time; returns how late it is already, seconds."""
        due = self._started + (stamp_ns - self._start_ns) / 1e9 / self._rate
        while (ahead := due - time.monotonic()) > 0 and not stopped():
            time.sleep(min(ahead, MAX_SLEEP_S))
        return max(0.0, time.monotonic() - due)


class BagPlayer:
    """Publishes the messages of a bag through an rclpy node.

    names: published name of each topic of the bag; those that are not in it are left out. clock_hz: of /clock, which
    carries the bag's time; 0 for none. Topics whose message package is not installed are left out: see `skipped`.
    """

    def __init__(self, node: Any, bag: BagReader, names: dict[str, str], *, clock_hz: float = 100.0) -> None:
        self._bag, self._names = bag, names
        self._publishers: dict[str, Any] = {}
        self.skipped: list[str] = []
        for topic in sorted(names):
            message_class = _message_class(bag.topics[topic])
            if message_class is None:
                self.skipped.append(f"{topic} ({bag.topics[topic].type} is not installed)")
                continue
            profile = _profile(bag.topics[topic].latched)
            self._publishers[topic] = node.create_publisher(message_class, names[topic], profile)
        self._clock: Any = None
        self._clock_period_ns = 0
        if clock_hz:
            from rosgraph_msgs.msg import Clock

            self._clock = node.create_publisher(Clock, "/clock", _profile(latched=False))
            self._clock_period_ns = round(1e9 / clock_hz)

    def wait_for_subscribers(
        self, timeout_s: float, stopped: Callable[[], bool] = lambda: False, *, clock_readers: int = 0
    ) -> list[str]:
        """Waits until all published topics have a subscriber, and /clock so many; returns those that still lack."""
        until = time.monotonic() + timeout_s
        while not stopped():
            alone = [p.topic_name for p in self._publishers.values() if not p.get_subscription_count()]
            if self._clock is not None and self._clock.get_subscription_count() < clock_readers:
                alone.append(self._clock.topic_name)
            if not alone or time.monotonic() > until:
                return alone
            time.sleep(MAX_SLEEP_S)
        return []

    def play(
        self,
        *,
        rate: float = 1.0,
        loop: bool = False,
        start_offset_s: float = 0.0,
        stopped: Callable[[], bool] = lambda: False,
        progress: Callable[[float], None] = lambda fraction: None,
    ) -> PlayResult:
        """Plays the bag once, or until `stopped` when looping; bag time runs `rate` times as fast as real time."""
        result = PlayResult({self._names[topic]: 0 for topic in self._publishers})
        start_ns = self._bag.start_ns + round(start_offset_s * 1e9)
        if start_ns > self._bag.end_ns:
            length = f"{self._bag.duration_s:.3f} s"
            raise BagError(f"start offset {start_offset_s} s lies beyond the {length} of {self._bag.path}; give less")
        for _ in itertools.count() if loop else range(1):
            self._publish_latched(start_ns, result)
            schedule = _Schedule(start_ns, rate)
            for stamp_ns, message in self._events(start_ns):
                late = schedule.wait_until(stamp_ns, stopped)
                if stopped():
                    return result
                if message is None:
                    self._publish_clock(stamp_ns)
                    continue
                self._publishers[message.topic].publish(bytes(message.data))
                result.counts[self._names[message.topic]] += 1
                result.latest_s = max(result.latest_s, late)
                progress((stamp_ns - start_ns) / max(1, self._bag.end_ns - start_ns))
            result.rounds += 1
        return result

    def flush(self) -> None:
        """Waits until reliable subscribers have what was published: it leaves in a thread that ends with the node."""
        from rclpy.duration import Duration

        until = time.monotonic() + FLUSH_TIMEOUT_S
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, until - time.monotonic())))

    def _events(self, start_ns: int) -> Iterator[tuple[int, BagMessage | None]]:
        """The bag's messages with the ticks of the clock (None) between them, by bag time."""
        tick_ns = start_ns
        for message in self._bag.messages(self._publishers, start_ns):
            while self._clock is not None and tick_ns <= message.stamp_ns:
                yield tick_ns, None
                tick_ns += self._clock_period_ns
            yield message.stamp_ns, message

    def _publish_clock(self, stamp_ns: int) -> None:
        from builtin_interfaces.msg import Time
        from rosgraph_msgs.msg import Clock

        seconds, rest = divmod(stamp_ns, 10**9)
        self._clock.publish(Clock(clock=Time(sec=seconds, nanosec=rest)))

    def _publish_latched(self, start_ns: int, result: PlayResult) -> None:
        """Publishes what latched topics held before the start, as a late subscriber would have got it."""
        latched = [topic for topic in self._publishers if self._bag.topics[topic].latched]
        last: dict[str, bytes] = {}
        if latched and start_ns > self._bag.start_ns:
            for message in itertools.takewhile(lambda m: m.stamp_ns < start_ns, self._bag.messages(latched)):
                last[message.topic] = message.data
        for topic, data in last.items():
            self._publishers[topic].publish(bytes(data))
            result.counts[self._names[topic]] += 1


def _message_class(topic: BagTopic) -> Any:
    package, kind, name = topic.type.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), name)
    except (ImportError, AttributeError):
        return None


def _profile(latched: bool) -> Any:
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1 if latched else QUEUE_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
