"""Pictures of six cameras and odometry, arriving in any order, to sets of one instant.

One camera is the anchor: each of its pictures is an attempt, and gets from every other camera the picture whose stamp
is nearest, if that lies within the slop. Nothing is compared pairwise, so cameras that are triggered one after another
over a whole period still form sets. There are no callbacks, no locks and no clock here: every call returns what it
brought about, so that what a caller does with a set cannot hold the next one up.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.sensing.images import EncodedImage
from opendrivevla_ros.sensing.refusals import Refusal, Refused
from opendrivevla_ros.sensing.streams import Frame, ImageStream, OdometryStamps, Step, StreamClock

ODOMETRY = "odometry"


class MissingCamera(Enum):
    """What becomes of an anchor for which a camera has no picture."""

    SKIP = "skip"  # no set
    HOLD_LAST = "hold_last"  # the camera's last picture, if it is young enough; the set is degraded
    BLANK = "blank"  # a black picture; the set is degraded


@dataclass(frozen=True)
class SynchronizerSettings:
    """slop_s: how far a picture's stamp may lie from the anchor's. max_wait_s: how long after an anchor's arrival a
    latecomer still counts. hold_max_age_s: age of a held picture at the anchor's stamp. queue_size: pictures kept per
    camera, and anchors that may wait. frozen_after: so many repetitions of the same bytes are a frozen camera; 0
    accepts any. backward_tolerance_s, gap_limit_s: stamps of one stream that go back or forward by more are a clock
    jump. odometry_extrapolation_s: how far the anchor may lie after the last odometry. odometry_max_gap_s: how far
    the nearest odometry may lie from it otherwise. anchor_timeout_s: silence of the anchor camera that is reported.
    """

    anchor: str = "cam_front"
    cameras: tuple[str, ...] = CAMERA_NAMES
    slop_s: float = 0.05
    max_wait_s: float = 0.2
    missing_camera: MissingCamera = MissingCamera.SKIP
    hold_max_age_s: float = 0.5
    queue_size: int = 10
    frozen_after: int = 10
    backward_tolerance_s: float = 0.2
    gap_limit_s: float = 2.0
    odometry_extrapolation_s: float = 0.02
    odometry_max_gap_s: float = 0.1
    anchor_timeout_s: float = 1.0

    def __post_init__(self) -> None:
        if self.anchor not in self.cameras:
            raise ValueError(f"anchor {self.anchor!r} is not one of the cameras {', '.join(self.cameras)}")
        for name in ("slop_s", "gap_limit_s", "anchor_timeout_s", "odometry_max_gap_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 seconds")
        for name in ("max_wait_s", "hold_max_age_s", "backward_tolerance_s", "odometry_extrapolation_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be below 0 seconds")
        if self.queue_size < 2:
            raise ValueError(f"queue_size is {self.queue_size}; a nearest picture needs at least 2 to choose from")
        if self.frozen_after < 0:
            raise ValueError(f"frozen_after is {self.frozen_after}; it must be 0 (off) or a number of pictures")


@dataclass(frozen=True)
class SyncedFrame:
    """One camera's picture in a set, undecoded. held: an older one repeated. blank: none, image is None."""

    camera: str
    stamp_ns: int
    image: EncodedImage | None
    held: bool = False
    blank: bool = False


@dataclass(frozen=True)
class FrameSet:
    """A picture of every camera for one anchor stamp (nanoseconds), in the order of the settings' cameras."""

    anchor_stamp_ns: int
    frames: dict[str, SyncedFrame]

    @property
    def skew_ns(self) -> int:
        """Largest distance of a picture's stamp from the anchor's; blank ones have none."""
        return max(abs(frame.stamp_ns - self.anchor_stamp_ns) for frame in self.frames.values() if not frame.blank)

    @property
    def degraded(self) -> tuple[str, ...]:
        """Why the set is less than a full one, for example "cam_back held"."""
        words = ((f.camera, "held" if f.held else "blank") for f in self.frames.values() if f.held or f.blank)
        return tuple(f"{camera} {word}" for camera, word in words)


Outcome: TypeAlias = list[FrameSet | Refused]


class Synchronizer:
    """Forms sets from pictures and odometry stamps; see the module's first lines.

    Not for use from several threads at once. `now_ns` is the time of arrival on any one clock that does not jump;
    stamps are nanoseconds of the sensors' clock. Results come in the order of time; several at once where a latecomer
    completes several. counters: refusals by reason and source. received: pictures by camera. formed: sets.
    """

    def __init__(self, settings: SynchronizerSettings | None = None) -> None:
        self.settings = SynchronizerSettings() if settings is None else settings
        self._slop = _nanoseconds(self.settings.slop_s)
        self._wait = _nanoseconds(self.settings.max_wait_s)
        self._others = tuple(camera for camera in self.settings.cameras if camera != self.settings.anchor)
        self.reset()

    def reset(self) -> None:
        """Forgets everything, counters too."""
        self.counters: Counter[tuple[Refusal, str]] = Counter()
        self.received: Counter[str] = Counter()
        self.formed = 0
        self._bad_odometry: Refused | None = None
        settings = self.settings
        tolerance, limit = _nanoseconds(settings.backward_tolerance_s), _nanoseconds(settings.gap_limit_s)
        self._streams = {
            camera: ImageStream(StreamClock(tolerance, limit), settings.queue_size, settings.frozen_after)
            for camera in settings.cameras
        }
        self._odometry = OdometryStamps(
            StreamClock(tolerance, limit),
            _nanoseconds(settings.odometry_extrapolation_s),
            _nanoseconds(settings.odometry_max_gap_s),
        )
        self._pending: deque[_Pending] = deque()
        self._newest_anchor: int | None = None
        self._anchor_heard: int | None = None

    def add_image(self, camera: str, stamp_ns: int, image: EncodedImage, now_ns: int) -> Outcome:
        """Takes one picture; returns the sets it completes and what is refused."""
        stream = self._streams.get(camera)
        if stream is None:
            known = ", ".join(self.settings.cameras)
            message = f"a picture came from camera {camera!r}, which is not one of {known}"
            return [self._refused(Refusal.UNKNOWN_CAMERA, message, camera, stamp_ns)]
        self.received[camera] += 1
        is_anchor = camera == self.settings.anchor
        if is_anchor:
            self._anchor_heard = now_ns
        outcome: Outcome = []
        step = stream.clock.step(stamp_ns)
        if step is Step.JUMP:
            stream.forget()
            if is_anchor:
                outcome.append(self._jump(stamp_ns))
            else:
                self.counters[Refusal.CLOCK_JUMP, camera] += 1
        elif step in (Step.DUPLICATE, Step.BACKWARDS):
            return [self._out_of_order(step, camera, stamp_ns, stream.clock)]
        elif self._is_from_before_the_jump(stream.clock, stamp_ns):
            message = f"a picture of {camera} is from before the clock jump"
            return [self._refused(Refusal.TOO_LATE, message, camera, stamp_ns)]
        if stream.is_frozen(image):
            times = stream.repeats + 1
            message = f"{camera} sent the same bytes {times} times in a row: is the camera or its driver stuck?"
            outcome.append(self._refused(Refusal.CAMERA_FROZEN, message, camera, stamp_ns, ends_attempt=is_anchor))
        elif is_anchor:
            self._newest_anchor = stamp_ns
            self._pending.append(_Pending(stamp_ns, now_ns, image, waiting={ODOMETRY, *self._others}))
            for other in self._others:
                self._settle(self._pending[-1], other)
            self._settle_odometry(self._pending[-1])
        else:
            if stream.missed is not None and stamp_ns <= stream.missed + self._slop:
                waited = f"the wait of {self.settings.max_wait_s} s for it was over"
                message = f"a picture of {camera} arrived after {waited}: is its transport slow?"
                outcome.append(self._refused(Refusal.TOO_LATE, message, camera, stamp_ns))
            stream.frames.append((stamp_ns, image))
        if not is_anchor:
            for pending in reversed(self._pending):  # what has settled a later anchor has settled the earlier ones
                if camera not in pending.waiting:
                    break
                self._settle(pending, camera)
        return outcome + self._decide(now_ns)

    def add_odometry(self, stamp_ns: int, now_ns: int) -> Outcome:
        """Takes the stamp of one odometry sample that the odometry buffer keeps."""
        self._bad_odometry = None
        clock = self._odometry.clock
        step = clock.step(stamp_ns)
        if step is Step.JUMP:
            self._odometry.stamps.clear()
        elif step in (Step.DUPLICATE, Step.BACKWARDS):
            return [self._out_of_order(step, ODOMETRY, stamp_ns, clock)]
        elif self._is_from_before_the_jump(clock, stamp_ns):
            message = "an odometry sample is from before the clock jump"
            return [self._refused(Refusal.TOO_LATE, message, ODOMETRY, stamp_ns)]
        self._odometry.append(stamp_ns)
        if not self._pending:
            return []
        for pending in reversed(self._pending):
            if ODOMETRY not in pending.waiting:
                break
            self._settle_odometry(pending)
        return self._decide(now_ns)

    def odometry_refused(self, refused: Refused) -> None:
        """Takes note of a sample that the odometry buffer drops: sets that then lack odometry say why."""
        self.counters[refused.reason, refused.source] += 1
        self._bad_odometry = refused

    def poll(self, now_ns: int) -> Outcome:
        """Decides what has waited long enough, and reports an anchor camera that is silent."""
        outcome = self._decide(now_ns)
        if self._anchor_heard is None:
            self._anchor_heard = now_ns
        silence = now_ns - self._anchor_heard
        if silence >= _nanoseconds(self.settings.anchor_timeout_s):
            self._anchor_heard = now_ns
            anchor = self.settings.anchor
            message = f"no picture of the anchor camera {anchor} for {silence / 1e9:.1f} s: is it publishing?"
            newest = self._newest_anchor or 0
            outcome.append(self._refused(Refusal.MISSING_CAMERA, message, anchor, newest, ends_attempt=True))
        return outcome

    def _settle(self, pending: "_Pending", camera: str) -> None:
        """Chooses the camera's picture for an anchor as soon as no better one can come."""
        settled, frame = self._streams[camera].nearest(pending.stamp_ns, self._slop)
        if settled:
            pending.waiting.discard(camera)
            pending.chosen[camera] = frame

    def _settle_odometry(self, pending: "_Pending") -> None:
        if self._odometry.reaches(pending.stamp_ns):
            pending.waiting.discard(ODOMETRY)

    def _decide(self, now_ns: int) -> Outcome:
        """Outcomes of the anchors that wait for nothing any more, or have waited long enough, oldest first.

        An anchor never waits longer than the one after it: each stream's stamps rise, so what settles the later one
        has settled the earlier one.
        """
        outcome: Outcome = []
        while self._pending:
            pending = self._pending[0]
            overdue = now_ns - pending.arrival_ns >= self._wait or len(self._pending) > self.settings.queue_size
            if pending.waiting and not overdue:
                break
            self._pending.popleft()
            outcome.append(self._outcome(pending))
            for camera in self._others:
                self._streams[camera].prune(pending.stamp_ns - self._slop)
        return outcome

    def _outcome(self, pending: "_Pending") -> FrameSet | Refused:
        anchor, stamp = self.settings.anchor, pending.stamp_ns
        frames: dict[str, SyncedFrame] = {}
        refusals: list[Refused] = []
        for camera in self.settings.cameras:
            if camera == anchor:
                frames[camera] = SyncedFrame(camera, stamp, pending.image)
                continue
            stream = self._streams[camera]
            chosen = pending.chosen.get(camera)
            if camera in pending.waiting:
                chosen = stream.nearest(stamp, self._slop)[1]
            if chosen is not None:
                frames[camera] = SyncedFrame(camera, *chosen)
                continue
            stream.missed = stamp
            refusal = self._missing(camera, stream, stamp)
            substitute = self._substitute(camera, stream, stamp)
            if substitute is None:
                refusals.append(refusal)
            else:
                frames[camera] = substitute
        if not refusals and (odometry := self._odometry.problem(stamp)) is not None:
            reason, message = odometry
            if self._bad_odometry is not None:
                reason, message = self._bad_odometry.reason, self._bad_odometry.message
            refusals.append(self._refused(reason, message, ODOMETRY, stamp, ends_attempt=True))
        if not refusals:
            self.formed += 1
            return FrameSet(stamp, frames)
        if len(refusals) == 1:
            return refusals[0]
        message = "; ".join(refusal.message for refusal in refusals)
        return Refused(refusals[0].reason, message, refusals[0].source, stamp, ends_attempt=True)

    def _missing(self, camera: str, stream: ImageStream, stamp_ns: int) -> Refused:
        if stream.frozen:
            message = f"{camera} repeats the same bytes: is the camera or its driver stuck?"
            return self._refused(Refusal.CAMERA_FROZEN, message, camera, stamp_ns, ends_attempt=True)
        if stream.frames:
            away = min(abs(stamp - stamp_ns) for stamp, _ in stream.frames) / 1e9
            nearest = f"the nearest is {away:.3f} s away"
        else:
            nearest = "there is none at all: is it publishing?"
        message = f"no picture of {camera} within {self.settings.slop_s} s of {self.settings.anchor}; {nearest}"
        return self._refused(Refusal.MISSING_CAMERA, message, camera, stamp_ns, ends_attempt=True)

    def _substitute(self, camera: str, stream: ImageStream, stamp_ns: int) -> SyncedFrame | None:
        """What stands in for a missing picture under the settings' policy, or None."""
        if self.settings.missing_camera is MissingCamera.BLANK:
            return SyncedFrame(camera, stamp_ns, None, blank=True)
        if self.settings.missing_camera is MissingCamera.HOLD_LAST:
            oldest = stamp_ns - _nanoseconds(self.settings.hold_max_age_s)
            for stamp, image in reversed(stream.frames):
                if oldest <= stamp <= stamp_ns:
                    return SyncedFrame(camera, stamp, image, held=True)
        return None

    def _jump(self, stamp_ns: int) -> Refused:
        """Starts anew at the anchor's new time. Streams that jumped before the anchor keep what is of that time."""
        before = self._newest_anchor or 0
        dropped = len(self._pending)
        self._pending.clear()
        self._newest_anchor = stamp_ns
        near, is_back = _nanoseconds(self.settings.gap_limit_s), stamp_ns < before
        for camera in self._others:
            stream = self._streams[camera]
            if not stream.clock.joined(stamp_ns, near) and is_back:
                stream.forget()
        if not self._odometry.clock.joined(stamp_ns, near) and is_back:
            self._odometry.stamps.clear()
        message = (
            f"the stamps of {self.settings.anchor} jumped by {(stamp_ns - before) / 1e9:+.3f} s: "
            f"all temporal state is dropped, with {dropped} waiting pictures"
        )
        return self._refused(Refusal.CLOCK_JUMP, message, self.settings.anchor, stamp_ns, ends_attempt=True)

    def _is_from_before_the_jump(self, clock: StreamClock, stamp_ns: int) -> bool:
        """Whether the anchor's clock has jumped back, and this stream's has not yet."""
        if not clock.behind or self._newest_anchor is None:
            return False
        ahead = self.settings.max_wait_s + self.settings.slop_s + self.settings.backward_tolerance_s
        if stamp_ns - self._newest_anchor > _nanoseconds(ahead):
            return True
        clock.behind = False
        return False

    def _out_of_order(self, step: Step, source: str, stamp_ns: int, clock: StreamClock) -> Refused:
        is_odometry = source == ODOMETRY
        if step is Step.DUPLICATE:
            reason = Refusal.ODOMETRY_DUPLICATE_STAMP if is_odometry else Refusal.DUPLICATE_STAMP
            return self._refused(reason, f"two messages of {source} have the stamp {stamp_ns} ns", source, stamp_ns)
        reason = Refusal.ODOMETRY_STAMP_BACKWARDS if is_odometry else Refusal.STAMP_BACKWARDS
        back = ((clock.last or 0) - stamp_ns) / 1e9
        message = f"a stamp of {source} lies {back:.3f} s before the one that came before it"
        return self._refused(reason, message, source, stamp_ns, ends_attempt=source == self.settings.anchor)

    def _refused(
        self, reason: Refusal, message: str, source: str, stamp_ns: int, *, ends_attempt: bool = False
    ) -> Refused:
        self.counters[reason, source] += 1
        return Refused(reason, message, source, stamp_ns, ends_attempt)


@dataclass
class _Pending:
    """An anchor that waits; waiting: cameras (and odometry) of which a better match may still come."""

    stamp_ns: int
    arrival_ns: int
    image: EncodedImage
    waiting: set[str]
    chosen: dict[str, Frame | None] = field(default_factory=dict)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
