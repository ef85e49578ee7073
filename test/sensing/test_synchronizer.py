"""The synchroniser: which sets it forms, what it refuses and why, and that it recovers."""

from collections import Counter
from dataclasses import replace

import pytest
from benchmarks.synchronizer import Case, cases, complete_anchors, drive, feed, found_sets
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.sensing.images import CompressedImage
from opendrivevla_ros.sensing.refusals import Refusal, Refused
from opendrivevla_ros.sensing.synchronizer import (
    FrameSet,
    MissingCamera,
    Synchronizer,
    SynchronizerSettings,
)

MS = 1_000_000
SECOND = 1000 * MS
PERIOD = 80 * MS
FRONT, LEFT, RIGHT = "cam_front", "cam_front_left", "cam_front_right"
THREE = SynchronizerSettings(cameras=(FRONT, LEFT, RIGHT), frozen_after=0)


class Feeder:
    """Feeds a synchroniser of three cameras and sorts what comes out."""

    def __init__(self, synchronizer_settings: SynchronizerSettings = THREE) -> None:
        self.synchronizer = Synchronizer(synchronizer_settings)
        self.sets: list[FrameSet] = []
        self.refusals: list[Refused] = []
        self.count = 0

    def image(self, camera: str, stamp_ns: int, now_ns: int | None = None, data: bytes | None = None) -> None:
        self.count += 1
        content = self.count.to_bytes(8, "big") if data is None else data
        now = stamp_ns if now_ns is None else now_ns
        self._sort(self.synchronizer.add_image(camera, stamp_ns, CompressedImage(content), now))

    def odometry(self, stamp_ns: int, now_ns: int | None = None) -> None:
        self._sort(self.synchronizer.add_odometry(stamp_ns, stamp_ns if now_ns is None else now_ns))

    def poll(self, now_ns: int) -> None:
        self._sort(self.synchronizer.poll(now_ns))

    def period(
        self, stamp_ns: int, cameras: tuple[str, ...] = (FRONT, LEFT, RIGHT), now_ns: int | None = None
    ) -> None:
        """Odometry on both sides of a stamp, and a picture of each camera at it."""
        now = stamp_ns if now_ns is None else now_ns
        for ahead in range(-40, 40, 10):
            self.odometry(stamp_ns + ahead * MS, now)
        for camera in cameras:
            self.image(camera, stamp_ns, now)

    def _sort(self, outcome: list[FrameSet | Refused]) -> None:
        for result in outcome:
            (self.sets if isinstance(result, FrameSet) else self.refusals).append(result)  # type: ignore[arg-type]

    @property
    def anchors(self) -> list[int]:
        return [frame_set.anchor_stamp_ns for frame_set in self.sets]

    @property
    def reasons(self) -> list[Refusal]:
        return [refused.reason for refused in self.refusals]

    @property
    def attempts_refused(self) -> list[tuple[Refusal, str]]:
        return [(refused.reason, refused.source) for refused in self.refusals if refused.ends_attempt]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_set_that_exists_is_found(case: Case) -> None:
    found = found_sets(case)
    assert len(case.existing) >= 90
    assert case.existing <= found


def test_the_inputs_hold_two_hundred_sets_where_nothing_is_lost() -> None:
    whole = [case for case in cases() if "loss" not in case.name]
    assert [len(case.existing) for case in whole] == [200] * len(whole)


def test_a_set_holds_the_nearest_picture_of_every_camera() -> None:
    feeder = Feeder()
    for index in range(-1, 12):
        stamp = SECOND + index * PERIOD
        feeder.odometry(stamp - MS)
        feeder.image(LEFT, stamp - 35 * MS)
        feeder.image(FRONT, stamp)
        feeder.image(RIGHT, stamp + 30 * MS)
    assert len(feeder.sets) >= 11
    for frame_set in feeder.sets[1:]:
        skews = {camera: frame.stamp_ns - frame_set.anchor_stamp_ns for camera, frame in frame_set.frames.items()}
        assert skews == {FRONT: 0, LEFT: -35 * MS, RIGHT: 30 * MS}
        assert frame_set.skew_ns == 35 * MS
        assert frame_set.degraded == ()


def test_a_set_is_formed_at_once_when_no_nearer_picture_is_due() -> None:
    feeder = Feeder()
    for index in range(20):
        stamp = SECOND + index * PERIOD
        feeder.image(LEFT, stamp - 8 * MS)
        feeder.image(RIGHT, stamp - 4 * MS)
        feeder.odometry(stamp + 1)
        before = len(feeder.sets)
        feeder.image(FRONT, stamp)
        if index > 10:
            assert len(feeder.sets) == before + 1


def test_latecomers_complete_the_waiting_sets_in_order() -> None:
    feeder = Feeder(replace(THREE, max_wait_s=0.5))
    for index in range(4):
        feeder.period(SECOND + index * PERIOD, (FRONT, LEFT))
    assert feeder.sets == []
    for index in range(4):
        feeder.image(RIGHT, SECOND + index * PERIOD, now_ns=SECOND + 4 * PERIOD)
    assert feeder.anchors == [SECOND + index * PERIOD for index in range(4)]


def test_a_missing_camera_is_refused_by_name_with_the_distance_of_its_nearest_picture() -> None:
    feeder = Feeder()
    feeder.period(SECOND)
    feeder.image(RIGHT, SECOND + 9 * PERIOD)
    feeder.period(SECOND + PERIOD * 8, (FRONT, LEFT))
    assert feeder.attempts_refused == [(Refusal.MISSING_CAMERA, RIGHT)]
    assert "no picture of cam_front_right within 0.05 s of cam_front; the nearest is 0.080 s away" in (
        feeder.refusals[0].message
    )
    feeder.period(SECOND + PERIOD * 9, (FRONT, LEFT))
    assert feeder.anchors == [SECOND, SECOND + 9 * PERIOD]
    assert feeder.synchronizer.counters[Refusal.MISSING_CAMERA, RIGHT] == 1


def test_a_camera_that_never_came_is_given_up_after_the_wait_and_not_before() -> None:
    feeder = Feeder()
    feeder.period(SECOND, (FRONT, LEFT))
    feeder.poll(SECOND + 199 * MS)
    assert feeder.refusals == []
    feeder.poll(SECOND + 200 * MS)
    assert feeder.attempts_refused == [(Refusal.MISSING_CAMERA, RIGHT)]
    assert "none at all" in feeder.refusals[0].message


def test_a_refusal_names_all_missing_cameras() -> None:
    feeder = Feeder()
    feeder.period(SECOND, (FRONT,))
    feeder.poll(2 * SECOND)
    assert RIGHT in feeder.refusals[0].message
    assert LEFT in feeder.refusals[0].message


def test_hold_last_repeats_a_picture_until_it_is_too_old() -> None:
    feeder = Feeder(replace(THREE, missing_camera=MissingCamera.HOLD_LAST, hold_max_age_s=0.2))
    feeder.period(SECOND)
    for index in range(1, 5):
        feeder.period(SECOND + index * PERIOD, (FRONT, LEFT))
        feeder.poll(SECOND + index * PERIOD + 200 * MS)
    held = [frame_set.frames[RIGHT] for frame_set in feeder.sets[1:]]
    assert [(frame.stamp_ns, frame.held) for frame in held] == [(SECOND, True)] * 2
    assert feeder.sets[1].degraded == ("cam_front_right held",)
    assert feeder.attempts_refused == [(Refusal.MISSING_CAMERA, RIGHT)] * 2


def test_blank_stands_in_for_a_missing_camera_and_says_so() -> None:
    feeder = Feeder(replace(THREE, missing_camera=MissingCamera.BLANK))
    feeder.period(SECOND, (FRONT, LEFT))
    feeder.poll(SECOND + 200 * MS)
    (frame_set,) = feeder.sets
    assert frame_set.frames[RIGHT].blank
    assert frame_set.frames[RIGHT].image is None
    assert frame_set.degraded == ("cam_front_right blank",)
    assert frame_set.skew_ns == 0
    assert feeder.synchronizer.counters[Refusal.MISSING_CAMERA, RIGHT] == 1


def test_a_picture_that_comes_after_its_set_was_given_up_is_counted_as_too_late() -> None:
    feeder = Feeder()
    for index in range(6):
        stamp = SECOND + index * PERIOD
        feeder.period(stamp, (FRONT, LEFT))
        feeder.poll(stamp + PERIOD - 1)
        if index >= 4:
            feeder.image(RIGHT, SECOND + (index - 4) * PERIOD, now_ns=stamp + PERIOD - 1)
    assert feeder.synchronizer.counters[Refusal.TOO_LATE, RIGHT] == 2
    assert feeder.sets == []


def test_a_doubled_stamp_is_dropped_and_the_set_still_forms_once() -> None:
    feeder = Feeder()
    feeder.period(SECOND)
    for camera in (FRONT, LEFT):
        feeder.image(camera, SECOND)
    feeder.odometry(SECOND + 30 * MS)
    assert feeder.anchors == [SECOND]
    assert feeder.reasons == [Refusal.DUPLICATE_STAMP] * 2 + [Refusal.ODOMETRY_DUPLICATE_STAMP]
    assert feeder.attempts_refused == []


def test_a_stamp_that_goes_back_a_little_is_dropped() -> None:
    feeder = Feeder()
    feeder.period(SECOND)
    for camera in (LEFT, FRONT):
        feeder.image(camera, SECOND - 100 * MS)
    feeder.odometry(SECOND - 100 * MS)
    assert feeder.reasons == [Refusal.STAMP_BACKWARDS] * 2 + [Refusal.ODOMETRY_STAMP_BACKWARDS]
    assert feeder.attempts_refused == [(Refusal.STAMP_BACKWARDS, FRONT)]
    assert feeder.anchors == [SECOND]
    assert "0.100 s before" in feeder.refusals[0].message


def test_an_unknown_camera_is_refused() -> None:
    feeder = Feeder()
    feeder.image("cam_top", SECOND)
    assert feeder.reasons == [Refusal.UNKNOWN_CAMERA]


def test_a_frozen_camera_is_refused_by_name_and_accepted_again_when_it_moves() -> None:
    feeder = Feeder(replace(THREE, frozen_after=3))
    for index in range(10):
        stamp = SECOND + index * PERIOD
        feeder.period(stamp, (FRONT, LEFT))
        feeder.image(RIGHT, stamp, data=b"same" if index < 8 else None)
    assert feeder.anchors == [SECOND + index * PERIOD for index in (0, 1, 2, 8, 9)]
    assert feeder.attempts_refused == [(Refusal.CAMERA_FROZEN, RIGHT)] * 5


def test_a_frozen_anchor_camera_ends_each_attempt() -> None:
    feeder = Feeder(replace(THREE, frozen_after=2))
    for index in range(4):
        stamp = SECOND + index * PERIOD
        feeder.period(stamp, (LEFT, RIGHT))
        feeder.image(FRONT, stamp, data=b"same")
    assert feeder.attempts_refused == [(Refusal.CAMERA_FROZEN, FRONT)] * 2
    assert len(feeder.sets) == 2


def test_missing_odometry_is_refused_after_the_wait() -> None:
    feeder = Feeder()
    for camera in (LEFT, RIGHT, FRONT):
        feeder.image(camera, SECOND)
    feeder.poll(SECOND + 200 * MS)
    assert feeder.attempts_refused == [(Refusal.ODOMETRY_MISSING, "odometry")]


def test_odometry_that_ends_before_the_picture_is_stale_beyond_the_extrapolation() -> None:
    feeder = Feeder()
    for index, before in enumerate((15, 25)):
        stamp = SECOND * (index + 1)
        feeder.odometry(stamp - 50 * MS)
        feeder.odometry(stamp - before * MS)
        for camera in (LEFT, RIGHT, FRONT):
            feeder.image(camera, stamp)
        feeder.poll(stamp + 200 * MS)
    assert feeder.anchors == [SECOND]
    assert feeder.attempts_refused == [(Refusal.ODOMETRY_STALE, "odometry")]


def test_a_hole_in_the_odometry_around_the_picture_is_stale() -> None:
    feeder = Feeder()
    feeder.odometry(SECOND - 150 * MS)
    feeder.odometry(SECOND + 150 * MS)
    for camera in (LEFT, RIGHT, FRONT):
        feeder.image(camera, SECOND)
    assert feeder.attempts_refused == [(Refusal.ODOMETRY_STALE, "odometry")]


def test_a_set_that_lacks_odometry_names_why_the_samples_were_refused() -> None:
    feeder = Feeder()
    bad = Refused(Refusal.ODOMETRY_NOT_FINITE, "odometry: a sample is not finite", "odometry", SECOND)
    for index in range(3):
        stamp = SECOND + index * PERIOD
        if index == 1:
            feeder.synchronizer.odometry_refused(bad)
        else:
            feeder.odometry(stamp - MS)
            feeder.odometry(stamp + MS)
        for camera in (LEFT, RIGHT, FRONT):
            feeder.image(camera, stamp)
        feeder.poll(stamp + 79 * MS if index == 0 else stamp + 200 * MS)
    assert feeder.attempts_refused == [(Refusal.ODOMETRY_NOT_FINITE, "odometry")]
    assert feeder.anchors == [SECOND, SECOND + 2 * PERIOD]


def test_a_silent_anchor_camera_is_reported_once_per_timeout() -> None:
    feeder = Feeder()
    for tenth in range(35):
        feeder.poll(SECOND + tenth * 100 * MS)
    assert feeder.attempts_refused == [(Refusal.MISSING_CAMERA, FRONT)] * 3


@pytest.mark.parametrize("jump", [-60 * SECOND, -1 * SECOND, 60 * SECOND])
def test_a_clock_jump_drops_what_waits_and_the_next_sets_form_at_once(jump: int) -> None:
    feeder = Feeder()
    start = 100 * SECOND
    for index in range(10):
        feeder.period(start + index * PERIOD)
    feeder.period(start + 10 * PERIOD, (FRONT, LEFT))
    before = len(feeder.sets)
    now = start + 11 * PERIOD
    for index in range(5):
        feeder.period(start + jump + index * PERIOD, (LEFT, FRONT, RIGHT), now_ns=now + index * PERIOD)
    assert feeder.attempts_refused == [(Refusal.CLOCK_JUMP, FRONT)]
    assert feeder.anchors[before:] == [start + jump + index * PERIOD for index in range(5)]


def test_pictures_from_before_a_jump_that_come_after_it_are_dropped() -> None:
    feeder = Feeder()
    start = 100 * SECOND
    for index in range(10):
        feeder.period(start + index * PERIOD)
    feeder.image(FRONT, 50 * SECOND, now_ns=start + 10 * PERIOD)
    feeder.image(RIGHT, start + 10 * PERIOD)
    feeder.odometry(start + 10 * PERIOD)
    assert feeder.reasons == [Refusal.CLOCK_JUMP, Refusal.TOO_LATE, Refusal.TOO_LATE]
    feeder.period(50 * SECOND, (LEFT, RIGHT), now_ns=start + 10 * PERIOD)
    assert feeder.anchors[-1] == 50 * SECOND


def test_one_camera_that_restarts_with_another_clock_stops_only_its_own_sets() -> None:
    feeder = Feeder()
    for index in range(5):
        feeder.period(100 * SECOND + index * PERIOD)
    feeder.image(RIGHT, 7 * SECOND, now_ns=100 * SECOND + 5 * PERIOD)
    feeder.period(100 * SECOND + 5 * PERIOD)
    assert len(feeder.sets) == 6
    assert Refusal.CLOCK_JUMP not in feeder.reasons


def test_reset_forgets_pictures_and_counters() -> None:
    feeder = Feeder()
    feeder.period(SECOND, (FRONT, LEFT))
    feeder.image("cam_top", SECOND)
    feeder.synchronizer.reset()
    feeder.image(RIGHT, SECOND)
    assert feeder.sets == []
    assert feeder.synchronizer.counters == Counter()
    assert feeder.synchronizer.received == Counter({RIGHT: 1})


def test_no_more_pictures_are_kept_than_the_queue_holds_while_the_anchor_is_silent() -> None:
    feeder = Feeder(replace(THREE, queue_size=4))
    for index in range(50):
        feeder.image(LEFT, SECOND + index * PERIOD)
    feeder.odometry(SECOND + 50 * PERIOD)
    feeder.period(SECOND + 46 * PERIOD, (RIGHT, FRONT))
    feeder.period(SECOND + 49 * PERIOD, (RIGHT, FRONT))
    assert SECOND + 49 * PERIOD in feeder.anchors


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"anchor": "cam_top"}, "anchor 'cam_top' is not one of"),
        ({"slop_s": 0.0}, "slop_s is 0.0"),
        ({"max_wait_s": float("nan")}, "max_wait_s is nan"),
        ({"queue_size": 1}, "queue_size is 1"),
        ({"frozen_after": -1}, "frozen_after is -1"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(THREE, **changes)


stamps = st.lists(st.integers(0, 3000), min_size=1, max_size=25, unique=True).map(sorted)


@given(front=stamps, left=stamps, right=stamps, latency=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_the_order_across_cameras_complete_sets_are_found_and_no_picture_lies_beyond_the_slop(
    front: list[int], left: list[int], right: list[int], latency: st.DataObject
) -> None:
    cameras = {FRONT: front, LEFT: left, RIGHT: right}
    messages = []
    for stream, milliseconds in {**cameras, "odometry": range(0, 3001, 10)}.items():
        delay = latency.draw(st.integers(0, 150))
        messages += [(stamp + delay, stream, stamp) for stamp in milliseconds]
    feeder = Feeder(replace(THREE, gap_limit_s=10.0, queue_size=200))
    for arrival, stream, stamp in sorted(messages):
        if stream == "odometry":
            feeder.odometry(SECOND + stamp * MS, SECOND + arrival * MS)
        else:
            feeder.image(stream, SECOND + stamp * MS, SECOND + arrival * MS)
    feeder.poll(10 * SECOND)
    assert len(set(feeder.anchors)) == len(feeder.anchors)
    for frame_set in feeder.sets:
        assert frame_set.skew_ns <= 50 * MS
    near = [s for s in front if all(any(abs(s - t) <= 50 for t in cameras[other]) for other in (LEFT, RIGHT))]
    assert feeder.anchors == [SECOND + stamp * MS for stamp in near]
    attempts = len(feeder.sets) + sum(refused.reason is Refusal.MISSING_CAMERA for refused in feeder.refusals[:-1])
    assert attempts == len(front)


@given(
    offsets=st.lists(st.integers(-40, 40), min_size=5, max_size=5),
    jitter=st.randoms(use_true_random=False),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
)
@settings(max_examples=40, deadline=None)
def test_with_steady_cameras_every_picture_in_a_set_is_the_nearest_there_is(
    offsets: list[int], jitter, loss: float
) -> None:
    messages = drive((0, *offsets), anchors=40, loss=loss, seed=jitter.randrange(1000))
    by_camera: dict[str, list[int]] = {}
    for message in messages:
        by_camera.setdefault(message.stream, []).append(message.stamp_ns)
    case = Case("", tuple(messages), complete_anchors(messages, 0.05), SynchronizerSettings(frozen_after=0))
    synchronizer = Synchronizer(case.settings)
    formed = []
    for message in messages:
        if message.stream == "odometry":
            results = synchronizer.add_odometry(message.stamp_ns, message.arrival_ns)
        else:
            image = CompressedImage(b"")
            results = synchronizer.add_image(message.stream, message.stamp_ns, image, message.arrival_ns)
        formed += [result for result in results if isinstance(result, FrameSet)]
    for frame_set in formed:
        for camera, frame in frame_set.frames.items():
            nearest = min(abs(stamp - frame_set.anchor_stamp_ns) for stamp in by_camera[camera])
            assert abs(frame.stamp_ns - frame_set.anchor_stamp_ns) == nearest
    assert len(formed) >= len(case.existing) - 3  # the last ones may still wait


@given(
    anchors=st.integers(6, 40),
    latencies_ms=st.lists(st.integers(0, 150), min_size=7, max_size=7),
)
@example(anchors=6, latencies_ms=[0, 0, 0, 0, 132, 0, 0])  # each pass of 0.5 s, one camera follows the anchor back
@settings(max_examples=30, deadline=None)
def test_every_pass_of_a_looped_bag_gives_all_its_sets_whatever_each_streams_latency(
    anchors: int, latencies_ms: list[int]
) -> None:
    once = drive((0, 8, -8, 25, 35, 15), anchors=anchors, image_latency_ms=0)
    latency = dict(zip((*CAMERA_NAMES, "odometry"), latencies_ms, strict=True))
    length = max(m.stamp_ns for m in once) - min(m.stamp_ns for m in once) + 40 * MS
    messages = [
        replace(m, arrival_ns=m.stamp_ns + number * length + latency[m.stream] * MS)
        for number in range(3)
        for m in once
    ]
    passes: list[set[int]] = [set()]

    def consume(result: FrameSet | Refused) -> None:
        if isinstance(result, FrameSet):
            passes[-1].add(result.anchor_stamp_ns)
        elif result.reason is Refusal.CLOCK_JUMP:
            passes.append(set())

    feed(Synchronizer(SynchronizerSettings(frozen_after=0)), sorted(messages, key=lambda m: m.arrival_ns), consume)
    assert passes == [complete_anchors(once, 0.05)] * 3
