"""Losses against values worked out by hand, and what must hold for any prediction."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training.samples import box_labels, map_labels

from opendrivevla_ros.perception.tracks import EGO, UNTRACKED
from opendrivevla_ros.training.labels import BoxLabels, encode_boxes
from opendrivevla_ros.training.losses import (
    FOUND_WEIGHTS,
    box_loss,
    dice_loss,
    focal_loss,
    heatmap_loss,
    heatmap_target,
    map_query_losses,
    mask_loss,
    occupancy_loss,
    track_losses,
)

RANGE = (-8.0, -8.0, -5.0, 8.0, 8.0, 3.0)


def perfect_tracks(labels: BoxLabels, queries: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """logits [2, Q, 10], codes [2, Q, 10] and objects [Q] that say exactly what the labels say."""
    logits, codes = torch.full((2, queries, 10), -30.0), torch.zeros(2, queries, 10)
    logits[:, torch.arange(len(labels)), labels.classes] = 30.0
    codes[:, : len(labels)] = labels.codes
    return logits, codes, torch.full((queries,), UNTRACKED)


def random_tracks(seed: int, queries: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, queries, 10, generator=generator) * 4
    codes = torch.randn(2, queries, 10, generator=generator) * 5
    objects = torch.tensor([11, UNTRACKED, UNTRACKED, 77, UNTRACKED, EGO])[:queries]
    return logits, codes, objects


def test_focal_loss_by_hand():
    logits = torch.tensor([0.0, 0.0, math.log(3)])  # p = 0.5, 0.5, 0.75
    targets = torch.tensor([1.0, 0.0, 1.0])
    expected = 0.25 * 0.25 * math.log(2) + 0.75 * 0.25 * math.log(2) + 0.25 * 0.0625 * -math.log(0.75)
    assert focal_loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_rare_classes_count_more_where_they_are_found_and_no_more_where_they_are_not():
    logits, found = torch.zeros(1, 2), torch.eye(2)
    alike = [focal_loss(logits, row[None]).item() for row in found]
    weighed = [focal_loss(logits, row[None], (1.0, 3.0)).item() for row in found]
    assert weighed[0] == pytest.approx(alike[0])
    assert weighed[1] - alike[1] == pytest.approx(2 * 0.25 * 0.25 * math.log(2))
    heat, centres = torch.zeros(2, 1, 1), torch.tensor([1.0, 1.0])[:, None, None]
    assert heatmap_loss(heat, centres, (1.0, 3.0)).item() == pytest.approx(2 * heatmap_loss(heat, centres).item())


def test_box_loss_weighs_the_code_and_leaves_out_unknown_velocities():
    errors, zero = torch.ones(2, 10), torch.zeros(2, 10)
    known = torch.tensor([True, False])
    # 1 and 2 by weight; a velocity that is off by 1 of 5 m/s counts half its square, over 5
    assert box_loss(errors, zero, known).item() == pytest.approx(13.0 + 2 * 0.5 / 5 + 13.0)
    far = torch.zeros(1, 10)
    far[0, 8] = 9.0
    assert box_loss(far, far * 0, known[:1]).item() == pytest.approx(9.0 - 5.0 / 2)


def test_track_losses_by_hand():
    labels = box_labels(1)
    logits, codes, objects = torch.zeros(1, 1, 10), labels.codes[None] + 1.0, torch.tensor([UNTRACKED])
    losses, matching = track_losses(logits, codes, objects, labels)
    # one query, ten classes at p = 0.5, one of them right, and rare; all ten entries of the code wrong by 1
    rare = FOUND_WEIGHTS[int(labels.classes)]
    assert losses["track_class"].item() == pytest.approx(2 * 0.25 * math.log(2) * (rare * 0.25 + 9 * 0.75), rel=1e-5)
    assert losses["track_box"].item() == pytest.approx(0.25 * 13.2, rel=1e-5)
    assert matching.queries.tolist() == [0]


def test_track_losses_vanish_at_the_perfect_prediction():
    labels = box_labels(3)
    losses, matching = track_losses(*perfect_tracks(labels), labels)
    assert sum(losses.values()).item() == pytest.approx(0, abs=1e-6)
    assert sorted(matching.labels.tolist()) == [0, 1, 2]


def test_a_carried_query_learns_its_object_even_where_another_query_is_nearer():
    labels = box_labels(1)
    codes = torch.stack([labels.codes[0], labels.codes[0] + 1])[None]
    losses, _ = track_losses(torch.zeros(1, 2, 10), codes, torch.tensor([UNTRACKED, 10]), labels)
    assert losses["track_box"].item() == pytest.approx(0.25 * 13.2, rel=1e-5)


def test_without_labels_every_query_learns_to_be_background():
    logits, codes, objects = random_tracks(0)
    losses, _ = track_losses(logits, codes, objects, box_labels(0))
    everything = 2 * sum(focal_loss(layer[objects != EGO], torch.zeros(5, 10)) for layer in logits)
    torch.testing.assert_close(losses["track_class"], everything)
    assert losses["track_box"].item() == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), queries=st.permutations(range(6)), rows=st.permutations(range(3)))
def test_track_losses_do_not_depend_on_the_order_of_queries_or_labels(
    seed: int, queries: list[int], rows: list[int]
) -> None:
    labels = box_labels(3, seed=seed)
    logits, codes, objects = random_tracks(seed)
    before, _ = track_losses(logits, codes, objects, labels)
    shuffled = labels.rows(torch.tensor(rows))
    after, _ = track_losses(logits[:, queries], codes[:, queries], objects[queries], shuffled)
    torch.testing.assert_close(before, after)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(0, 4), scale=st.sampled_from([0.0, 1.0, 1e4]))
def test_track_losses_are_not_negative_and_have_finite_gradients(seed: int, count: int, scale: float) -> None:
    logits, codes, objects = random_tracks(seed)
    logits, codes = (logits * scale).requires_grad_(), (codes * scale).requires_grad_()
    losses, _ = track_losses(logits, codes, objects, box_labels(count, seed=seed))
    assert all(loss.item() >= 0 for loss in losses.values())
    gradients = torch.autograd.grad(sum(losses.values()), (logits, codes))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_map_query_losses_vanish_at_the_perfect_prediction():
    labels = map_labels()
    logits, boxes = torch.full((2, 4, 3), -30.0), torch.full((2, 4, 4), 0.5)
    logits[:, torch.tensor([3, 1]), labels.classes] = 30.0
    boxes[:, [3, 1]] = labels.boxes()
    losses, matching = map_query_losses(logits, boxes, labels)
    assert sum(losses.values()).item() == pytest.approx(0, abs=1e-5)
    assert dict(zip(matching.queries.tolist(), matching.labels.tolist(), strict=True)) == {3: 0, 1: 1}


def test_map_box_loss_by_hand():
    labels = map_labels()
    boxes = labels.boxes()[None] + torch.tensor([0.0, 0.25, 0.0, 0.0])
    losses, _ = map_query_losses(torch.zeros(1, 2, 3), boxes, labels)
    # shifted up by a quarter: the line keeps 3/4 (overlap 0.6, no gap), the rectangle half (overlap 1/3, no gap)
    assert losses["map_box"].item() == pytest.approx((5 * 0.5 + 2 * (0.4 + 2 / 3)) / 2, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(5)))
def test_map_query_losses_do_not_depend_on_the_order_and_have_finite_gradients(seed: int, order: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(2, 5, 3, generator=generator) * 4).requires_grad_()
    boxes = torch.rand(2, 5, 4, generator=generator).requires_grad_()
    before, _ = map_query_losses(logits, boxes, map_labels())
    after, _ = map_query_losses(logits[:, order], boxes[:, order], map_labels())
    torch.testing.assert_close(before, after)
    gradients = torch.autograd.grad(sum(before.values()), (logits, boxes))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_dice_loss_by_hand():
    masks = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    targets = torch.tensor([[True, True, False, False]]).expand(3, -1)
    torch.testing.assert_close(dice_loss(masks, targets), torch.tensor([0.0, 1 - 2 / 3, 1.0]), atol=1e-4, rtol=0)


def test_mask_loss_by_hand():
    masks = torch.tensor([[1.0, 0.0, 0.5, 0.5]])
    targets = torch.tensor([[True, False, True, False]])
    cross_entropy = (2 * math.log1p(math.exp(-4)) + 2 * math.log(2)) / 4
    dice = 1 - 2 * 1.5 / (1.5 + 2)
    assert mask_loss(masks, targets).item() == pytest.approx(3 * cross_entropy + dice, rel=1e-4)


def test_a_mask_above_one_outside_the_element_is_pulled_down():
    masks = torch.tensor([[5.0, 0.1]], requires_grad=True)
    (gradient,) = torch.autograd.grad(mask_loss(masks, torch.tensor([[False, True]])), masks)
    assert gradient[0, 0] > 1
    assert gradient[0, 1] < 0


def test_without_masks_the_mask_loss_is_zero():
    assert mask_loss(torch.zeros(0, 9), torch.zeros(0, 9, dtype=torch.bool)).item() == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 1.0, 100.0]))
def test_mask_loss_has_finite_gradients_and_no_order(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(3, 16, generator=generator) * scale).requires_grad_()
    targets = torch.rand(3, 16, generator=generator) > 0.5
    loss = mask_loss(masks, targets)
    torch.testing.assert_close(loss, mask_loss(masks.flip(0), targets.flip(0)))
    (gradient,) = torch.autograd.grad(loss, masks)
    assert gradient.isfinite().all()


def test_occupancy_loss_by_hand():
    logits = torch.tensor([[[0.0, 100.0]]])
    assert occupancy_loss(logits, torch.tensor([[[True, True]]])).item() == pytest.approx(math.log(2) / 2)


def test_the_heatmap_has_a_peak_of_one_in_the_centres_cell():
    boxes = torch.tensor([[3.5, -2.5, 0.0, 4.0, 9.0, 1.5, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0, 0, 0]])
    labels = replace(box_labels(2), classes=torch.tensor([2, 2]), codes=encode_boxes(boxes))
    target = heatmap_target(labels, classes=4, size=16, range_metres=RANGE)
    assert target.shape == (4, 16, 16)
    assert (target == 1).nonzero().tolist() == [[2, 5, 11]]
    # deviation: half of sqrt(4 * 9) = 3 cells of 1 m
    assert target[2, 5, 14].item() == pytest.approx(math.exp(-0.5))
    assert target[[0, 1, 3]].sum().item() == 0


def test_heatmap_loss_by_hand():
    logits, targets = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 0.5, 0.0]]])
    expected = math.log(2) * 0.25 * (1 + 0.5**4 + 1)
    assert heatmap_loss(logits, targets).item() == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 1.0, 1e4]))
def test_heatmap_loss_vanishes_at_the_perfect_prediction_and_has_finite_gradients(seed: int, scale: float) -> None:
    target = heatmap_target(box_labels(2, seed=seed), classes=10, size=16, range_metres=RANGE)
    perfect = torch.where(target == 1, 30.0, -30.0)
    assert heatmap_loss(perfect, target).item() == pytest.approx(0, abs=1e-5)
    logits = (torch.randn(target.shape, generator=torch.Generator().manual_seed(seed)) * scale).requires_grad_()
    (gradient,) = torch.autograd.grad(heatmap_loss(logits, target), logits)
    assert gradient.isfinite().all()
