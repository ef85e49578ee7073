"""What the topics of a running system carry: rates, sizes, skews, delays, and whether that is what the node needs."""

import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraRig
from opendrivevla_ros.datasets.bag_storage import BagTopic
from opendrivevla_ros.datasets.bag_topics import InputTopics
from opendrivevla_ros.sensing.calibration import CameraInfo, CameraInfoMonitor
from opendrivevla_ros.sensing.images import compressed_size

ANCHOR = "cam_front"
SLOP_S = 0.05
MIN_CAMERA_HZ, MIN_ODOMETRY_HZ = 5.0, 20.0
REMEDY_STAMPS = "stamp pictures when they are taken (a bag that starts again does this once)"
SETTLED_S, POLL_S = 1.0, 0.1
SAME_CLOCK_S = 60.0  # a stamp farther from now is of a bag or a simulation


@dataclass
class Stream:
    """What came on one topic. arrivals: seconds, steady. stamps: seconds of the header. size: of the last picture."""

    topic: str
    arrivals: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    bytes: int = 0
    size: tuple[int, int] | None = None
    info: CameraInfo | None = None

    @property
    def rate(self) -> float:
        """Messages per second; 0 for less than two."""
        if len(self.arrivals) < 2:
            return 0.0
        return (len(self.arrivals) - 1) / max(1e-9, self.arrivals[-1] - self.arrivals[0])


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table. state: ok, note or broken. remedy: what to do, empty when nothing."""

    name: str
    state: str
    found: str
    remedy: str = ""


def discovered_topics(node: Any, timeout_s: float) -> dict[str, BagTopic]:
    """The topics that others publish now: all that are found until no more come for SETTLED_S, or the timeout."""
    topics: dict[str, BagTopic] = {}
    grown = started = time.monotonic()
    while (now := time.monotonic()) < started + timeout_s and not (topics and now > grown + SETTLED_S):
        for name, types in node.get_topic_names_and_types():
            others = [end for end in node.get_publishers_info_by_topic(name) if end.node_name != node.get_name()]
            if others and name not in topics:
                topics[name] = BagTopic(name, types[0], 1)
                grown = now
        time.sleep(POLL_S)
    return topics


def listen(node: Any, inputs: InputTopics, seconds: float) -> dict[str, Stream]:
    """Listens to all inputs for a while; the streams by input name."""
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

    profile = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
    streams: dict[str, Stream] = {}
    for name, topic in inputs.by_input.items():
        streams[name] = Stream(topic.name)
        package, kind, message_name = topic.type.split("/")
        message_class = getattr(importlib.import_module(f"{package}.{kind}"), message_name)

        def note(message: Any, stream: Stream = streams[name]) -> None:
            _note(stream, message)

        node.create_subscription(message_class, topic.name, note, profile)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        executor.spin_once(timeout_sec=0.1)
    executor.remove_node(node)
    return streams


def _note(stream: Stream, message: Any) -> None:
    stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
    stream.arrivals.append(time.monotonic())
    stream.stamps.append(stamp)
    stream.delays.append(time.time() - stamp)
    if hasattr(message, "distortion_model"):
        stream.info = CameraInfo.of(message)
    elif hasattr(message, "data"):
        stream.bytes = len(message.data)
        stream.size = (message.width, message.height) if hasattr(message, "width") else _jpeg_size(message.data)


def _jpeg_size(data: Any) -> tuple[int, int] | None:
    try:
        return compressed_size(data)
    except ValueError:
        return None


def judge(streams: Mapping[str, Stream], missing: list[str], rig: CameraRig | None) -> list[Finding]:
    """The findings about the inputs of a running system. rig: to hold camera_info against; None: none is known."""
    findings = [
        Finding(name, "broken", "no topic", "start its driver, or name its topic in a topic map") for name in missing
    ]
    monitor = CameraInfoMonitor(rig) if rig is not None else None
    for name, stream in streams.items():
        camera, _, kind = name.partition("/")
        if not stream.arrivals:
            findings.append(Finding(name, "broken", f"{stream.topic}: nothing came", "is its driver paused or stuck?"))
        elif kind == "image":
            findings.append(_camera(name, stream, streams.get(f"{ANCHOR}/image")))
        elif kind == "camera_info":
            findings.append(_calibration(camera, stream, streams.get(f"{camera}/image"), monitor))
        else:
            findings.append(_motion(name, stream))
    order = [*(f"{camera}/{kind}" for camera in CAMERA_NAMES for kind in ("image", "camera_info"))]
    return sorted(findings, key=lambda f: (order.index(f.name) if f.name in order else len(order), f.name))


def _camera(name: str, stream: Stream, anchor: Stream | None) -> Finding:
    facts = [f"{stream.rate:.1f} Hz"]
    if stream.size is None:
        return Finding(name, "broken", f"{stream.topic}: not a picture", "publish JPEG or PNG, or an Image")
    facts += [f"{stream.size[0]}x{stream.size[1]}", f"{stream.bytes / 1e3:.0f} kB", *_delay(stream)]
    skew = _skew(stream, anchor)
    if skew is not None:
        facts.append(f"skew {skew * 1e3:.0f} ms")
    found = ", ".join(facts)
    if any(later <= earlier for earlier, later in zip(stream.stamps, stream.stamps[1:], strict=False)):
        return Finding(
            name,
            "broken",
            f"{found}; stamps repeat or go back",
            REMEDY_STAMPS,
        )
    if stream.rate < MIN_CAMERA_HZ:
        remedy = f"at least {MIN_CAMERA_HZ:.0f} Hz; if it is sent faster, messages are lost: see the DDS line"
        return Finding(name, "broken", found, remedy)
    if skew is not None and skew > SLOP_S:
        remedy = f"trigger the cameras together, or raise sync.slop above {skew:.3f} s"
        return Finding(name, "broken", found, remedy)
    return Finding(name, "ok", found)


def _skew(stream: Stream, anchor: Stream | None) -> float | None:
    """Median distance from a picture of the anchor to the nearest one of this camera, seconds."""
    if anchor is None or anchor is stream or not anchor.stamps:
        return None
    distances = np.abs(np.subtract.outer(anchor.stamps, stream.stamps))
    return float(np.median(distances.min(axis=1)))


def _delay(stream: Stream) -> list[str]:
    delay = float(np.median(stream.delays))
    return [f"{delay * 1e3:.0f} ms old"] if abs(delay) < SAME_CLOCK_S else ["stamps of another clock"]


def _calibration(camera: str, stream: Stream, image: Stream | None, monitor: CameraInfoMonitor | None) -> Finding:
    name, info = f"{camera}/camera_info", stream.info
    assert info is not None
    found = f"{info.width}x{info.height}, fx {info.k[0]:.1f}"
    if image is not None and image.size is not None and image.size != (info.width, info.height):
        seen = f"{found}, but pictures are {image.size[0]}x{image.size[1]}"
        return Finding(name, "broken", seen, "calibrate at the size that is published")
    refused = monitor.check(camera, info, 0) if monitor is not None else None
    if refused is not None:
        return Finding(name, "broken", refused.message, "give the rig file of this vehicle (--rig)")
    return Finding(name, "ok", found + (", as in the rig file" if monitor is not None else ""))


def _motion(name: str, stream: Stream) -> Finding:
    found = ", ".join([f"{stream.rate:.1f} Hz", *_delay(stream)])
    if name == "odometry" and stream.rate < MIN_ODOMETRY_HZ:
        return Finding(name, "broken", found, f"publish odometry at {MIN_ODOMETRY_HZ:.0f} Hz or more")
    return Finding(name, "ok", found)
