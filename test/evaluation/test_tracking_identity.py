"""Identity switches of tracks: counted where a number changes, whether at once or after a gap."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation.scenes import make_label, true_agent

from opendrivevla_ros.core.plan import Agent
from opendrivevla_ros.datasets.driving_samples import AgentLabel
from opendrivevla_ros.evaluation.tracking_identity import identity_scores


def found(label: AgentLabel, number: int, off: float = 0.0) -> Agent:
    return replace(true_agent(label), track_id=number, position=label.position + np.array([off, 0.0, 0.0]))


CAR = make_label(4, 10.0)


def test_a_number_that_stays_is_no_switch() -> None:
    scores = identity_scores([[([CAR], [found(CAR, 70, off)]) for off in (0.0, 1.5, -1.5)]])
    assert (scores.tracks, scores.tracked, scores.switches, scores.recall) == (1, 1, 0, 1.0)


@pytest.mark.parametrize("gap", [0, 2])
def test_a_new_number_is_one_switch_also_after_a_gap(gap: int) -> None:
    scene = [([CAR], [found(CAR, 70)]), *[([CAR], [])] * gap, ([CAR], [found(CAR, 71)]), ([CAR], [found(CAR, 71)])]
    scores = identity_scores([scene])
    assert scores.switches == 1
    assert scores.switches_per_track == 1.0
    assert scores.recall == pytest.approx(3 / (3 + gap))


def test_a_pair_of_before_stays_though_another_is_nearer() -> None:
    scene = [([CAR], [found(CAR, 70)]), ([CAR], [found(CAR, 71, 0.1), found(CAR, 70, 1.9)])]
    assert identity_scores([scene]).switches == 0


def test_two_that_swap_their_numbers_are_two_switches() -> None:
    other = make_label(5, 20.0)
    scene = [
        ([CAR, other], [found(CAR, 70), found(other, 71)]),
        ([CAR, other], [found(CAR, 71), found(other, 70)]),
    ]
    scores = identity_scores([scene])
    assert (scores.tracks, scores.switches, scores.switches_per_track) == (2, 2, 1.0)


def test_what_is_too_far_off_or_of_another_class_is_no_match() -> None:
    bus = replace(found(CAR, 70), label="bus")
    scores = identity_scores([[([CAR], [found(CAR, 70, 2.1)]), ([CAR], [bus])]])
    assert (scores.tracks, scores.tracked, scores.recall) == (1, 0, 0.0)


def test_each_scene_begins_anew_and_only_what_can_be_seen_in_range_counts() -> None:
    scores = identity_scores([[([CAR], [found(CAR, 70)])], [([CAR], [found(CAR, 71)])]])
    assert (scores.tracks, scores.switches) == (2, 0)
    away, hidden = make_label(1, 31.0), make_label(2, 5.0, points=0)
    assert identity_scores([[([away, hidden], [])]]).tracks == 0
