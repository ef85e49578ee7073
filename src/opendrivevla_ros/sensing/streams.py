"""The latest stamps and pictures of one stream, and what they tell of those that are still to come."""

from bisect import bisect_left
from collections import deque
from enum import Enum
from typing import TypeAlias

from opendrivevla_ros.sensing.images import EncodedImage, same_bytes
from opendrivevla_ros.sensing.refusals import Refusal

ODOMETRY_STAMPS = 2048  # kept; 20 s at 100 Hz, 2 s at 1 kHz
INTERVALS = 8  # of a camera's latest stamps, from which its period is known
JITTER = 0.8  # the next picture may come after so much of the shortest of them

Frame: TypeAlias = tuple[int, EncodedImage]  # stamp_ns, image


class Step(Enum):
    FORWARD = 0
    DUPLICATE = 1
    BACKWARDS = 2
    JUMP = 3


class StreamClock:
    """The stamps of one stream. jumped: it has, and the anchor not yet. behind: the anchor has, and it not yet."""

    def __init__(self, backward_tolerance_ns: int, gap_limit_ns: int) -> None:
        self.last: int | None = None
        self.jumped = False
        self.behind = False
        self._tolerance = backward_tolerance_ns
        self._gap_limit = gap_limit_ns

    def step(self, stamp_ns: int) -> Step:
        """How a stamp follows the one before; remembers it, except for one that goes back a little."""
        last = self.last
        if last is None:
            self.last = stamp_ns
            return Step.FORWARD
        ahead = stamp_ns - last
        if ahead == 0:
            return Step.DUPLICATE
        if -self._tolerance <= ahead < 0:
            return Step.BACKWARDS
        self.last = stamp_ns
        if 0 < ahead <= self._gap_limit:
            return Step.FORWARD
        self.jumped, self.behind = not self.behind, False  # where the anchor went before, this is the answer to it
        return Step.JUMP

    def joined(self, stamp_ns: int, near_ns: int) -> bool:
        """Told that the anchor jumped to `stamp_ns`; whether this stream was there before."""
        joined = self.jumped and self.last is not None and abs(self.last - stamp_ns) <= near_ns
        self.jumped = False
        self.behind = not joined and self.last is not None and self.last > stamp_ns
        return joined


class ImageStream:
    """The latest pictures of one camera. missed: the last anchor that was decided without it."""

    def __init__(self, clock: StreamClock, queue_size: int, frozen_after: int) -> None:
        self.clock = clock
        self.frames: deque[Frame] = deque(maxlen=queue_size)
        self.missed: int | None = None
        self.repeats = 0
        self._frozen_after = frozen_after
        self._previous_image: EncodedImage | None = None
        self._previous_stamp: int | None = None
        self._intervals: deque[int] = deque(maxlen=INTERVALS)

    def forget(self) -> None:
        """Drops the pictures, but not what is known of the camera's period and content."""
        self.frames.clear()
        self.missed = None
        self._previous_stamp = None

    @property
    def frozen(self) -> bool:
        return 0 < self._frozen_after <= self.repeats

    def is_frozen(self, image: EncodedImage) -> bool:
        """Told of every picture in order; whether the camera has repeated itself too often by now."""
        last, stamp = self._previous_stamp, self.clock.last
        if last is not None and stamp is not None:
            self._intervals.append(stamp - last)
        self._previous_stamp = stamp
        if self._frozen_after:
            previous, self._previous_image = self._previous_image, image
            self.repeats = self.repeats + 1 if previous is not None and same_bytes(previous, image) else 0
        return self.frozen

    def nearest(self, stamp_ns: int, slop_ns: int) -> tuple[bool, Frame | None]:
        """The picture nearest to a stamp, None beyond the slop, and whether no nearer one can still come.

        None can once a picture at or after the stamp is there, for stamps rise; nor while the camera's next one
        is due only after a time at which it would be farther away. Of two equally near the earlier is taken.
        """
        before = after = None
        for frame in reversed(self.frames):
            if frame[0] <= stamp_ns:
                before = frame
                break
            after = frame
        best = min((f for f in (before, after) if f is not None), key=lambda f: abs(f[0] - stamp_ns), default=None)
        if best is not None and abs(best[0] - stamp_ns) > slop_ns:
            best = None
        last = self.clock.last
        if last is not None and last >= stamp_ns and not self.clock.behind:
            return True, best
        if best is None or len(self._intervals) < INTERVALS:
            return False, best
        return 2 * (stamp_ns - best[0]) < JITTER * min(self._intervals), best

    def prune(self, oldest_ns: int) -> None:
        """Drops what no later anchor can want: all before `oldest_ns` but the newest of those, which may be held."""
        frames = self.frames
        while len(frames) > 1 and frames[1][0] < oldest_ns:
            frames.popleft()


class OdometryStamps:
    """The stamps of the latest odometry samples."""

    def __init__(self, clock: StreamClock, extrapolation_ns: int, max_gap_ns: int) -> None:
        self.clock = clock
        self.stamps: list[int] = []
        self._extrapolation = extrapolation_ns
        self._max_gap = max_gap_ns

    def append(self, stamp_ns: int) -> None:
        self.stamps.append(stamp_ns)
        if len(self.stamps) > 2 * ODOMETRY_STAMPS:
            del self.stamps[:ODOMETRY_STAMPS]

    def reaches(self, stamp_ns: int) -> bool:
        """Whether there are samples on both sides of a stamp."""
        return bool(self.stamps) and self.stamps[0] <= stamp_ns <= self.stamps[-1]

    def problem(self, stamp_ns: int) -> tuple[Refusal, str] | None:
        """Why there is no ego motion at a stamp, or None where there is."""
        if not self.stamps:
            return Refusal.ODOMETRY_MISSING, "there is no odometry: is it publishing?"
        index = bisect_left(self.stamps, stamp_ns)
        if index == len(self.stamps):
            age, limit = stamp_ns - self.stamps[-1], self._extrapolation
            if age <= limit:
                return None
            message = f"the last odometry is {age / 1e9:.3f} s older than the picture; the limit is {limit / 1e9} s"
            return Refusal.ODOMETRY_STALE, message
        after = self.stamps[index] - stamp_ns
        if after == 0:
            return None
        if index == 0:
            message = f"odometry begins {after / 1e9:.3f} s after the picture"
            return Refusal.ODOMETRY_MISSING, message
        nearest = min(after, stamp_ns - self.stamps[index - 1])
        if nearest <= self._max_gap:
            return None
        message = f"the nearest odometry is {nearest / 1e9:.3f} s away; the limit is {self._max_gap / 1e9} s"
        return Refusal.ODOMETRY_STALE, message
