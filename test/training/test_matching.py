"""Matching: carried queries keep their object, the rest are shared out at the least cost."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training.samples import box_labels, map_labels

from opendrivevla_ros.perception.tracks import EGO, UNTRACKED
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.matching import assign, class_cost, generalised_overlap, match_map, match_tracks


def pairs(matching) -> dict[int, int]:
    return dict(zip(matching.queries.tolist(), matching.labels.tolist(), strict=True))


def test_carried_queries_keep_their_object_and_the_rest_take_the_nearest():
    labels = box_labels(3)  # ids 10, 11, 12
    codes = torch.stack([labels.codes[0], labels.codes[0], labels.codes[2], labels.codes[1], labels.codes[1]])
    logits = torch.zeros(5, 10)
    objects = torch.tensor([UNTRACKED, 11, UNTRACKED, UNTRACKED, 99])
    # query 1 follows object 11 although it now lies on object 10; query 4's object 99 is gone; nobody is left for 3
    assert pairs(match_tracks(logits, codes, objects, labels)) == {1: 1, 0: 0, 2: 2}


def test_the_ego_query_matches_nothing():
    labels = box_labels(1)
    objects = torch.tensor([EGO, UNTRACKED])
    codes = torch.stack([labels.codes[0], labels.codes[0] + 3])
    assert pairs(match_tracks(torch.zeros(2, 10), codes, objects, labels)) == {1: 0}


def test_without_labels_nothing_matches():
    assert len(match_tracks(torch.zeros(4, 10), torch.zeros(4, 10), torch.full((4,), UNTRACKED), box_labels(0))) == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(6)))
def test_the_matching_follows_a_permutation_of_the_queries(seed: int, order: list[int]):
    generator = torch.Generator().manual_seed(seed)
    labels = box_labels(3, seed=seed)
    logits, codes = torch.randn(6, 10, generator=generator), torch.randn(6, 10, generator=generator) * 5
    objects = torch.tensor([12, UNTRACKED, UNTRACKED, 50, UNTRACKED, EGO])
    before = pairs(match_tracks(logits, codes, objects, labels))
    after = pairs(match_tracks(logits[order], codes[order], objects[order], labels))
    assert {order[query]: label for query, label in after.items()} == before


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_assignment_is_the_cheapest_of_all(seed: int):
    cost = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    found = assign(cost)
    cheapest = min(
        sum(cost[query, label].item() for label, query in enumerate(queries))
        for queries in itertools.permutations(range(4), 3)
    )
    assert cost[found.queries, found.labels].sum().item() == pytest.approx(cheapest, abs=1e-5)


def test_predictions_that_are_not_finite_match_nothing():
    with pytest.raises(TrainingError, match="not finite"):
        assign(torch.tensor([[float("nan"), 0.0]]))


def test_the_class_cost_is_by_hand_that_of_focal_loss():
    # p = 0.5: 0.25 * 0.25 * ln 2 - 0.75 * 0.25 * ln 2
    torch.testing.assert_close(class_cost(torch.zeros(1, 2), torch.tensor([1])), torch.tensor([[-0.0866434]]))


def test_the_generalised_overlap_by_hand():
    unit = torch.tensor([0.5, 0.5, 1.0, 1.0])
    torch.testing.assert_close(generalised_overlap(unit, unit), torch.tensor(1.0))
    # half of it inside: 0.5 / 1.5, hull of 1.5 without a gap
    shifted = torch.tensor([1.0, 0.5, 1.0, 1.0])
    torch.testing.assert_close(generalised_overlap(unit, shifted), torch.tensor(1 / 3))
    # a gap as wide as the boxes: no overlap, and a third of the hull is empty
    apart = torch.tensor([2.5, 0.5, 1.0, 1.0])
    torch.testing.assert_close(generalised_overlap(unit, apart), torch.tensor(-1 / 3))


def test_map_queries_match_the_element_of_their_class_and_place():
    labels = map_labels()
    boxes = torch.cat([torch.full((1, 4), 0.9), labels.boxes().flip(0)])
    logits = torch.full((3, 3), -3.0)
    assert pairs(match_map(logits, boxes, labels)) == {1: 1, 2: 0}
