"""The synchroniser against inputs that defeat pairwise matching: sets found of those that exist, and cost per message.

Six cameras at 12 Hz and odometry at 100 Hz. `python benchmarks/synchronizer.py` prints the tables. Where
message_filters is installed, its ApproximateTimeSynchronizer takes the same messages with the same queue and slop.
"""

import importlib.util
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.sensing.images import CompressedImage
from opendrivevla_ros.sensing.refusals import Refused
from opendrivevla_ros.sensing.synchronizer import (
    ODOMETRY,
    FrameSet,
    MissingCamera,
    Synchronizer,
    SynchronizerSettings,
)

MILLISECOND = 1_000_000
PERIOD = 83_333_333
ODOMETRY_PERIOD = 10 * MILLISECOND
START = 1_600_000_000 * 1_000_000_000
ANCHORS = 200
# A vehicle's six cameras, triggered one after another as a lidar sweeps past them; milliseconds after the front one.
SWEEP_MS = (0, 8, -8, 25, 35, 15)
SPREAD_MS = (0.0, 16.7, 33.3, 50.0, 66.6, 83.3)  # over a whole period


@dataclass(frozen=True)
class Message:
    """A message of a stream (a camera or odometry): when it arrives and what its stamp is, nanoseconds."""

    arrival_ns: int
    stream: str
    stamp_ns: int


@dataclass(frozen=True)
class Case:
    """An input, and the anchors for which it holds a whole set (in each of its passes)."""

    name: str
    messages: tuple[Message, ...]
    existing: frozenset[int]
    settings: SynchronizerSettings
    passes: int = 1
    consumer_raises: bool = False


def drive(
    offsets_ms: Sequence[float],
    *,
    anchors: int = ANCHORS,
    image_latency_ms: float = 20,
    loss: float = 0.0,
    seed: int = 0,
) -> list[Message]:
    """A drive of `anchors` periods, with the odometry and the other cameras a little longer on both sides."""
    draw = random.Random(seed)
    messages = []
    for camera, offset in zip(CAMERA_NAMES, offsets_ms, strict=True):
        margin = 0 if camera == CAMERA_NAMES[0] else 2
        for index in range(-margin, anchors + margin):
            stamp = START + index * PERIOD + round(offset * MILLISECOND)
            if draw.random() >= loss:
                messages.append(Message(stamp + round(image_latency_ms * MILLISECOND), camera, stamp))
    for index in range(-30, round(anchors * PERIOD / ODOMETRY_PERIOD) + 30):
        stamp = START + index * ODOMETRY_PERIOD + 3 * MILLISECOND
        messages.append(Message(stamp + 2 * MILLISECOND, ODOMETRY, stamp))
    return sorted(messages, key=lambda message: message.arrival_ns)


def complete_anchors(messages: Iterable[Message], slop_s: float) -> frozenset[int]:
    """Anchor stamps for which every camera has a picture within the slop, found by looking at all of them."""
    stamps: dict[str, list[int]] = {stream: [] for stream in (*CAMERA_NAMES, ODOMETRY)}
    for message in messages:
        stamps[message.stream].append(message.stamp_ns)
    slop = round(slop_s * 1e9)
    others = CAMERA_NAMES[1:]
    return frozenset(
        anchor
        for anchor in stamps[CAMERA_NAMES[0]]
        if all(any(abs(stamp - anchor) <= slop for stamp in stamps[camera]) for camera in others)
    )


def cases() -> list[Case]:
    """The inputs on which a pairwise matcher with these queues finds few sets or none."""
    settings = SynchronizerSettings(frozen_after=0)
    late = drive(SWEEP_MS, image_latency_ms=150)
    spread = drive(SPREAD_MS)
    once = drive(SWEEP_MS)
    lost = drive(SWEEP_MS, loss=0.1)
    pass_ns = once[-1].arrival_ns - once[0].arrival_ns + 50 * MILLISECOND
    again = [replace(message, arrival_ns=message.arrival_ns + pass_ns) for message in once]
    anchors_kept = frozenset(m.stamp_ns for m in lost if m.stream == CAMERA_NAMES[0])
    hold = replace(settings, missing_camera=MissingCamera.HOLD_LAST)
    return [
        Case("150 ms image latency, queue of 10", tuple(late), complete_anchors(late, 0.05), settings),
        Case("cameras 83 ms apart, slop 0.05 s", tuple(spread), complete_anchors(spread, 0.05), settings),
        Case("second pass of a looped bag", (*once, *again), complete_anchors(once, 0.05), settings, passes=2),
        Case("10 % frame loss, whole sets", tuple(lost), complete_anchors(lost, 0.05), settings),
        Case("10 % frame loss, hold_last, anchors", tuple(lost), anchors_kept, hold),
        Case(
            "every second consumer raises", tuple(once), complete_anchors(once, 0.05), settings, consumer_raises=True
        ),
    ]


def feed(
    synchronizer: Synchronizer, messages: Iterable[Message], consume: Callable[[FrameSet | Refused], None]
) -> None:
    """Gives every message to the synchroniser and each result to `consume`, which may raise; then polls once more."""
    results: list[FrameSet | Refused] = []
    now = 0
    for count, message in enumerate(messages):
        now = message.arrival_ns
        if message.stream == ODOMETRY:
            results = synchronizer.add_odometry(message.stamp_ns, now)
        else:
            image = CompressedImage(count.to_bytes(8, "big"))
            results = synchronizer.add_image(message.stream, message.stamp_ns, image, now)
        for result in results:
            try:
                consume(result)
            except RuntimeError:
                continue
    for result in synchronizer.poll(now + round(synchronizer.settings.max_wait_s * 1e9)):
        consume(result)


def found_sets(case: Case) -> frozenset[int]:
    """Anchor stamps of the sets that the synchroniser forms (in the second pass only, where there are two)."""
    found: set[int] = set()

    def consume(result: FrameSet | Refused) -> None:
        if isinstance(result, Refused):
            if result.reason.clears_state:
                found.clear()
            return
        found.add(result.anchor_stamp_ns)
        if case.consumer_raises and len(found) % 2:
            raise RuntimeError("a consumer failed")

    feed(Synchronizer(case.settings), case.messages, consume)
    return frozenset(found)


def pairwise_sets(case: Case) -> frozenset[int]:
    """Anchor stamps of the sets that message_filters forms from the same messages."""
    from builtin_interfaces.msg import Time
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter

    streams = (*CAMERA_NAMES, ODOMETRY)
    filters = {stream: SimpleFilter() for stream in streams}
    matcher = ApproximateTimeSynchronizer(list(filters.values()), case.settings.queue_size, case.settings.slop_s)
    found: set[int] = set()
    matcher.registerCallback(lambda *messages: found.add(messages[0].stamp_ns))
    for count, message in enumerate(case.messages):
        if count == len(case.messages) // 2 and case.passes == 2:
            found.clear()
        seconds, nanoseconds = divmod(message.stamp_ns, 1_000_000_000)
        header = SimpleNamespace(stamp=Time(sec=seconds, nanosec=nanoseconds))
        filters[message.stream].signalMessage(SimpleNamespace(header=header, stamp_ns=message.stamp_ns))
    return frozenset(found)


def microseconds_per_message(queue_size: int, *, one_silent: bool = False) -> tuple[float, float]:
    """Median cost of a picture and of an odometry sample.

    one_silent: a camera never comes, and is waited for so long that the queue of anchors is always full.
    """
    settings = SynchronizerSettings(queue_size=queue_size, max_wait_s=1000.0 if one_silent else 0.2)
    synchronizer = Synchronizer(settings)
    pictures, samples = [], []
    for count, message in enumerate(drive(SWEEP_MS, anchors=1000)):
        if one_silent and message.stream == CAMERA_NAMES[-1]:
            continue
        image = CompressedImage(count.to_bytes(8, "big") * 20_000)
        start = time.perf_counter_ns()
        if message.stream == ODOMETRY:
            synchronizer.add_odometry(message.stamp_ns, message.arrival_ns)
            samples.append(time.perf_counter_ns() - start)
        else:
            synchronizer.add_image(message.stream, message.stamp_ns, image, message.arrival_ns)
            pictures.append(time.perf_counter_ns() - start)
    return statistics.median(pictures) / 1000, statistics.median(samples) / 1000


def main() -> None:
    installed = importlib.util.find_spec("message_filters") is not None
    print(f"{'sets found of those that exist':<38} {'synchroniser':>13}   ApproximateTimeSynchronizer")
    for case in cases():
        found = f"{len(found_sets(case) & case.existing)} of {len(case.existing)}"
        if not installed:
            pairwise = "not run: message_filters is not installed"
        elif case.consumer_raises:
            pairwise = "not run: it holds its lock for ever"
        else:
            pairwise = f"{len(pairwise_sets(case) & case.existing)} of {len(case.existing)}"
        print(f"{case.name:<38} {found:>13}   {pairwise}")
    print("\nmedian us per message    picture  odometry    (one camera silent, queue full: picture  odometry)")
    for queue_size in (10, 100, 1000):
        usual, full = microseconds_per_message(queue_size), microseconds_per_message(queue_size, one_silent=True)
        costs = f"{usual[0]:>8.1f} {usual[1]:>9.1f} {full[0]:>40.1f} {full[1]:>9.1f}"
        print(f"queue of {queue_size:<15} {costs}")


if __name__ == "__main__":
    main()
