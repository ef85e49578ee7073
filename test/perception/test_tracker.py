"""Birth, death, motion and reporting of tracks."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opendrivevla_ros.perception.config import PerceptionConfig, PublishedQuirks
from opendrivevla_ros.perception.tracker import (
    LidarPose,
    Tracker,
    agent_tokens,
    decode_boxes,
    detections,
    move_references,
)
from opendrivevla_ros.perception.tracks import EGO, UNTRACKED, Tracks, fresh_tracks, join
from opendrivevla_ros.perception.transforms import inverse_sigmoid

QUERIES = 4
CONFIG = replace(PerceptionConfig(), queries=QUERIES, embed_dim=8, classes=3, quirks=PublishedQuirks.none())
PUBLISHED = replace(CONFIG, quirks=PublishedQuirks())
STANDING = LidarPose(torch.eye(3), torch.zeros(3), 0.0)

scores = st.sampled_from([0.0, 0.2, 0.349, 0.35, 0.36, 0.399, 0.4, 0.7, 0.99])


def fresh(config: PerceptionConfig = CONFIG) -> Tracks:
    count = config.queries + 1
    return fresh_tracks(torch.zeros(count, 2 * config.embed_dim), torch.zeros(count, 3), config)


def keep_position(query: Tensor) -> Tensor:
    return query[:, :3]


def run_frame(tracker: Tracker, frame_scores: list[float], pose: LidarPose = STANDING) -> Tracks:
    """One frame with the given scores for its tracks, 0 where there are more tracks; the live ones are carried."""
    tracks = tracker.begin(fresh(tracker.config), pose, keep_position)
    values = torch.zeros(len(tracks))
    values[: len(frame_scores)] = torch.tensor(frame_scores)[: len(tracks)]
    tracks = tracker.update(replace(tracks, scores=values))
    tracker.carry(tracks.select(tracks.ids >= 0))
    return tracks


def live_ids(tracks: Tracks) -> list[int]:
    return [identity for identity in tracks.ids.tolist() if identity >= 0]


@settings(deadline=None)
@given(st.lists(st.lists(scores, min_size=QUERIES + 1, max_size=12), min_size=1, max_size=15))
def test_ids_are_unique_in_a_frame_and_never_come_back(frames: list[list[float]]) -> None:
    tracker, gone, previous, known = Tracker(CONFIG), set[int](), set[int](), -1
    for frame_scores in frames:
        ids = live_ids(run_frame(tracker, frame_scores))
        assert len(ids) == len(set(ids))
        assert not gone & set(ids)
        new = sorted(set(ids) - previous)
        assert new == list(range(known + 1, known + 1 + len(new)))
        known += len(new)
        gone |= previous - set(ids)
        previous = set(ids)
    assert tracker.next_id == known + 1


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.2, 0.349]), min_size=5, max_size=5), st.integers(1, 6))
def test_a_track_dies_exactly_after_max_missed_low_scores(low: list[float], max_missed: int) -> None:
    tracker = Tracker(replace(CONFIG, max_missed=max_missed))
    born = [0.9]
    assert live_ids(run_frame(tracker, born)) == [0]
    fresh_rows = [0.0] * (QUERIES + 1)
    for frame in range(max_missed - 1):
        assert live_ids(run_frame(tracker, [*fresh_rows, low[frame % 5]])) == [0]
    assert live_ids(run_frame(tracker, [*fresh_rows, low[0]])) == []


@pytest.mark.parametrize(("score", "missed"), [(0.39, 3), (0.40, 0), (0.35, 3), (0.34, 4)])
def test_only_a_score_at_the_birth_threshold_forgives_missed_frames(score: float, missed: int) -> None:
    tracker = Tracker(CONFIG)
    tracks = replace(fresh(), ids=torch.tensor([7, -1, -1, -1, EGO]), missed=torch.tensor([3, 0, 0, 0, 0]))
    after = tracker.update(replace(tracks, scores=torch.tensor([score, 0.0, 0.0, 0.0, 0.0])))
    assert after.missed[0] == missed


def test_the_ego_query_never_gets_an_id() -> None:
    tracks = run_frame(Tracker(CONFIG), [0.9] * (QUERIES + 1))
    assert tracks.ids.tolist() == [0, 1, 2, 3, EGO]


@pytest.mark.parametrize(("config", "first_after_reset"), [(CONFIG, 0), (PUBLISHED, 2)])
def test_a_reset_drops_all_tracks_and_restarts_ids_unless_published(
    config: PerceptionConfig, first_after_reset: int
) -> None:
    tracker = Tracker(config)
    run_frame(tracker, [0.9, 0.9])
    tracker.reset()
    tracks = run_frame(tracker, [0.9])
    assert len(tracks) == QUERIES + 1
    assert live_ids(tracks) == [first_after_reset]


def active_tracks(values: list[float], config: PerceptionConfig = CONFIG) -> Tracks:
    """Tracks 10, 11, ... with these scores, centres at the origin, and their number as embedding."""
    base = fresh(replace(config, queries=len(values) - 1))
    numbers = torch.arange(len(values))
    return replace(
        base,
        ids=numbers + 10,
        scores=torch.tensor(values),
        embedding=numbers[:, None].expand(-1, config.embed_dim).float(),
    )


def test_reported_tracks_come_by_falling_score_without_the_weak_and_the_far() -> None:
    tracks = active_tracks([0.5, 0.9, 0.3, 0.7, 0.6])
    tracks.boxes[3, 0] = 61.3  # beyond the centre range
    tracks.logits[:, 2] = 1.0
    result = Tracker(CONFIG).report(tracks)
    assert result.ids.tolist() == [11, 14, 10]
    assert result.labels.tolist() == [2, 2, 2]
    assert result.boxes.shape == (3, 9)
    assert result.embeddings[:, 0].tolist() == [1, 4, 0]


def test_detected_is_also_who_is_too_weak_for_a_track_or_has_none_but_not_the_ego() -> None:
    tracks = active_tracks([0.5, 0.9, 0.01, 0.7, 0.6])
    tracks = replace(tracks, ids=torch.tensor([10, UNTRACKED, UNTRACKED, 13, EGO]))
    tracks.boxes[3, 0] = 61.3  # beyond the centre range
    tracks.logits[:, 2] = 1.0
    result = detections(tracks, CONFIG)
    assert result.ids.tolist() == [UNTRACKED, 10, UNTRACKED]
    assert result.scores.tolist() == pytest.approx([0.9, 0.5, 0.01])
    assert result.labels.tolist() == [2, 2, 2]
    many = active_tracks([0.001 * number for number in range(400)])
    assert detections(many, CONFIG).ids.tolist() == list(range(409, 109, -1))


def test_no_more_than_max_tracks_are_reported() -> None:
    config = replace(CONFIG, max_tracks=2)
    assert Tracker(config).report(active_tracks([0.5, 0.6, 0.7, 0.8])).ids.tolist() == [13, 12]


@pytest.mark.parametrize(("count", "clean", "published"), [(0, 0, 0), (1, 1, 0), (3, 3, 2)])
def test_the_worst_track_gives_a_token_unless_published(count: int, clean: int, published: int) -> None:
    tracks = active_tracks([0.9 - 0.1 * number for number in range(count)] + [0.1])
    result = Tracker(CONFIG).report(tracks)
    assert len(result.ids) == count
    assert agent_tokens(result, CONFIG).shape == (clean, CONFIG.embed_dim)
    assert agent_tokens(result, PUBLISHED)[:, 0].tolist() == list(range(published))


def test_no_more_than_max_tracks_live_at_once() -> None:
    tracker = Tracker(replace(CONFIG, max_tracks=6))
    everywhere = [0.9] * 20
    assert [len(live_ids(run_frame(tracker, everywhere))) for _ in range(4)] == [4, 6, 6, 6]
    weak = [0.0] * 20
    for _ in range(CONFIG.max_missed):
        run_frame(tracker, weak)
    assert live_ids(run_frame(tracker, everywhere)) == [6, 7, 8, 9]


def seen_at(places: list[tuple[float, float, int]], ids: list[int], values: list[float]) -> Tracks:
    """Tracks at places (x, y, class), with these ids and scores."""
    boxes, logits = torch.zeros(len(places), 10), torch.zeros(len(places), CONFIG.classes)
    boxes[:, :2] = torch.tensor([place[:2] for place in places])
    logits[torch.arange(len(places)), torch.tensor([place[2] for place in places])] = 1.0
    return replace(
        fresh(replace(CONFIG, queries=len(places) - 1)),
        ids=torch.tensor(ids),
        scores=torch.tensor(values),
        boxes=boxes,
        logits=logits,
    )


def test_what_is_followed_already_is_not_born_again() -> None:
    tracker = Tracker(replace(CONFIG, same_object_metres=2.0))
    tracker.next_id = 8
    places = [(1.0, 0.0, 0), (10.0, 0.0, 0), (0.0, 0.0, 1), (10.0, 1.5, 0), (0.0, 0.0, 0), (10.0, 0.0, 0)]
    tracks = tracker.update(seen_at(places, [UNTRACKED, UNTRACKED, UNTRACKED, UNTRACKED, 7, EGO], [0.9] * 6))
    # beside track 7: dropped; alone or of another class: born; beside one that is born: dropped; the ego drops none
    assert tracks.ids.tolist() == [UNTRACKED, 8, 9, UNTRACKED, 7, EGO]
    published = Tracker(CONFIG)
    again = published.update(seen_at(places, [UNTRACKED, UNTRACKED, UNTRACKED, UNTRACKED, 7, EGO], [0.9] * 6))
    assert len(live_ids(again)) == 5


def test_of_two_tracks_that_meet_the_surer_one_goes_on() -> None:
    tracker = Tracker(replace(CONFIG, same_object_metres=2.0))
    places = [(1.0, 0.0, 0), (0.0, 0.0, 0), (9.0, 0.0, 0), (5.0, 5.0, 2)]
    tracks = tracker.update(seen_at(places, [3, 4, 5, EGO], [0.5, 0.6, 0.1, 0.0]))
    assert tracks.ids.tolist() == [UNTRACKED, 4, 5, EGO]


positions = st.tuples(st.floats(-30, 30), st.floats(-30, 30), st.integers(0, 2))


@settings(deadline=None)
@given(st.lists(st.tuples(positions, scores, st.booleans()), min_size=1, max_size=8), st.floats(0.1, 5))
def test_no_two_of_the_live_tracks_are_the_same_object(
    rows: list[tuple[tuple[float, float, int], float, bool]], metres: float
) -> None:
    tracker = Tracker(replace(CONFIG, same_object_metres=metres))
    tracker.next_id = 100
    ids = [index if followed else UNTRACKED for index, (_, _, followed) in enumerate(rows)]
    tracks = tracker.update(seen_at([place for place, _, _ in rows], ids, [score for _, score, _ in rows]))
    alive = tracks.select(tracks.ids >= 0)
    distances = torch.cdist(alive.boxes[:, :2], alive.boxes[:, :2])
    same_class = alive.logits.argmax(1)[:, None] == alive.logits.argmax(1)
    assert not ((distances < metres) & same_class).triu(1).any()
    if any(followed for _, _, followed in rows) or max(score for _, score, _ in rows) >= CONFIG.birth_score:
        assert len(alive) > 0  # the best is never dropped


def test_without_any_track_frames_go_on() -> None:
    tracker = Tracker(CONFIG)
    for _ in range(3):
        tracks = run_frame(tracker, [0.1])
        assert len(tracks) == QUERIES + 1
        assert len(tracker.report(tracks).ids) == 0


def test_carried_tracks_follow_fresh_ones_with_moved_x_y_and_z_from_their_query() -> None:
    tracker = Tracker(CONFIG)
    tracks = tracker.begin(fresh(), STANDING, keep_position)
    tracks = tracker.update(replace(tracks, scores=torch.tensor([0.9, 0.0, 0.0, 0.0, 0.0])))
    tracks.boxes[0, -2:] = torch.tensor([4.0, -2.0])
    tracks.query[0, 2] = 0.5
    tracker.carry(tracks.select(tracks.ids >= 0))
    second = tracker.begin(fresh(), replace(STANDING, timestamp_s=0.5), keep_position)
    assert second.ids.tolist() == [UNTRACKED] * QUERIES + [EGO, 0]
    centre = second.reference[-1, :2].sigmoid() * 102.4 - 51.2
    torch.testing.assert_close(centre, torch.tensor([2.0, -1.0]), atol=1e-4, rtol=0)
    assert second.reference[-1, 2] == 0.5


coordinates = st.floats(-20, 20, width=32)


@settings(deadline=None)
@given(coordinates, coordinates, coordinates, coordinates, st.floats(-3, 3), st.floats(0, 1))
def test_motion_follows_the_point_in_the_world(
    x: float, y: float, east: float, north: float, yaw: float, seconds: float
) -> None:
    """A point that stands in the world keeps its world position, whatever the vehicle does."""
    range_metres = CONFIG.range_metres
    low, high = torch.tensor(range_metres[:3]), torch.tensor(range_metres[3:])
    point = torch.tensor([[x, y, -1.0]])
    cos, sin = math.cos(yaw), math.sin(yaw)
    turned = torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    current = LidarPose(turned, torch.tensor([east * 0.2, north * 0.2, 0.0]), seconds)
    moved = move_references(
        inverse_sigmoid((point - low) / (high - low)), torch.zeros(1, 2), STANDING, current, range_metres
    )
    seen = moved.sigmoid() * (high - low) + low
    torch.testing.assert_close(seen @ current.rotation + current.translation, point, atol=2e-3, rtol=0)


@settings(deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(0.1, 20), st.floats(0.1, 20), st.floats(0.1, 5))
def test_boxes_come_back_from_their_code(yaw: float, width: float, length: float, height: float) -> None:
    code = [1.0, 2.0, math.log(width), math.log(length), 3.0, math.log(height), math.sin(yaw), math.cos(yaw), 4.0, 5.0]
    box = torch.tensor([1.0, 2.0, 3.0, width, length, height, yaw, 4.0, 5.0])
    torch.testing.assert_close(decode_boxes(torch.tensor([code]))[0], box, atol=1e-4, rtol=1e-5)


def test_joined_and_selected_rows_keep_every_field() -> None:
    one, two = active_tracks([0.1, 0.2]), active_tracks([0.3])
    both = join([one, two])
    assert both.scores.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert both.select(torch.tensor([2, 0])).embedding[:, 0].tolist() == [0, 0]
    assert both.select(both.scores > 0.15).ids.tolist() == [11, 10]
