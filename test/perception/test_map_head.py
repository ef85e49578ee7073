"""From BEV features to map elements: the heads, the merging of masks, and each published behaviour on and off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opendrivevla_ros.perception.config import PerceptionConfig, PublishedQuirks
from opendrivevla_ros.perception.map_head import MapDecoding, MapHead
from opendrivevla_ros.perception.map_merge import merge_masks, rank_masks
from opendrivevla_ros.perception.mask_head import CrossAttention, MaskAttention

NONE = PublishedQuirks.none()
SMALL = replace(
    PerceptionConfig(),
    embed_dim=16,
    ffn_dim=32,
    heads=2,
    bev_size=8,
    map_queries=6,
    map_layers=2,
    map_attention_levels=1,
    map_masks=10,
    thing_blocks=1,
    stuff_blocks=2,
    quirks=NONE,
)


ACCEPTING = replace(SMALL, mask_overlap=1.0)  # a random network's masks overlap


def head(config: PerceptionConfig = ACCEPTING, mask_bias: float = -1.5) -> MapHead:
    """A random head whose masks are neither all empty nor all full."""
    torch.manual_seed(0)
    module = MapHead(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
        for mask_head in (module.things_mask_head, module.stuff_mask_head):
            fuse = mask_head.attnen
            torch.nn.init.eye_(fuse.linear_l1[0].weight)  # the mask is the sum of the heads' positive scores
            torch.nn.init.zeros_(fuse.linear_l1[0].bias)
            torch.nn.init.ones_(fuse.linear[0].weight)
            fuse.linear[0].bias.fill_(mask_bias)
    return module


@torch.no_grad()
def decode(config: PerceptionConfig = ACCEPTING, mask_bias: float = -1.5) -> MapDecoding:
    generator = torch.Generator().manual_seed(1)
    bev = torch.randn(config.bev_size**2, config.embed_dim, generator=generator)
    return head(config, mask_bias)(bev)


def with_quirk(config: PerceptionConfig, **quirks: bool) -> PerceptionConfig:
    return replace(config, quirks=replace(config.quirks, **quirks))


def test_shapes_follow_from_the_configuration() -> None:
    decoding, accepted = decode(), len(decode().accepted_ranks)
    assert accepted >= 2
    assert decoding.hidden.shape == (2, 6, 16)
    assert [tuple(reference.shape) for reference in decoding.references] == [(6, 2), (6, 4), (6, 4)]
    assert decoding.thing_masks.shape == (10, 8, 8)
    assert decoding.tokens.shape == (accepted + 1, 16)
    assert decoding.result.masks.shape == (accepted, 8, 8)
    assert decoding.result.lane.shape == (3, 8, 8)
    assert decoding.result.drivable.shape == (8, 8)


def test_fewer_candidates_than_wanted_are_all_taken() -> None:
    assert len(decode(replace(ACCEPTING, map_masks=100)).top_score) == 6 * 3


def test_without_any_element_the_drivable_area_is_the_only_token() -> None:
    decoding = decode(mask_bias=-100.0)
    assert decoding.accepted_ranks == []
    assert decoding.result.masks.shape == (0, 8, 8)
    assert not decoding.result.drivable.any()
    torch.testing.assert_close(decoding.tokens, decoding.stuff, atol=0, rtol=0)


def test_the_last_token_is_the_drivable_area() -> None:
    decoding = decode()
    torch.testing.assert_close(decoding.tokens[-1:], decoding.stuff, atol=0, rtol=0)


@pytest.mark.parametrize("published", [False, True])
def test_accepted_ranks_find_their_own_queries_unless_published(published: bool) -> None:
    decoding = decode(with_quirk(ACCEPTING, rank_as_query_index=published))
    ranks = decoding.accepted_ranks
    own, unsorted = decoding.things[decoding.rank_to_top[ranks]], decoding.things[ranks]
    assert not torch.equal(own, unsorted)
    torch.testing.assert_close(decoding.tokens[:-1], unsorted if published else own, atol=0, rtol=0)


def test_offsets_for_four_levels_are_misread_only_where_published() -> None:
    four = replace(ACCEPTING, map_attention_levels=4)
    clean, published = decode(four), decode(with_quirk(four, misstrided_map_attention=True))
    assert not torch.allclose(clean.memory, published.memory)


def test_offsets_for_the_one_level_are_never_misread() -> None:
    clean, published = decode(), decode(with_quirk(ACCEPTING, misstrided_map_attention=True))
    torch.testing.assert_close(clean.memory, published.memory, atol=0, rtol=0)


@torch.no_grad()
def test_the_stuff_position_enters_the_query_only_where_published() -> None:
    memory = torch.randn(64, 16, generator=torch.Generator().manual_seed(2))
    heads = [head(with_quirk(ACCEPTING, stuff_position_in_residual=flag)).stuff_mask_head for flag in (False, True)]
    content, position = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(3))
    clean, published = (module(content, memory, position)[0] for module in heads)
    assert not torch.allclose(clean, published)
    clean, published = (module(content, memory, torch.zeros_like(position))[0] for module in heads)
    torch.testing.assert_close(clean, published)


@torch.no_grad()
@pytest.mark.parametrize("queries", [1, 8, 9, 20])
def test_mask_attention_is_plain_attention_for_few_and_many_queries(queries: int) -> None:
    """Eight queries of two heads are the most that are folded into memory's space with 16 channels."""
    torch.manual_seed(4)
    module, heads, dim = CrossAttention(16, 2), 2, 8
    query, memory = torch.randn(queries, 16), torch.randn(30, 16)
    q, k, v = module.q(query).view(-1, heads, dim), module.k(memory).view(-1, heads, dim), module.v(memory)
    scores = torch.einsum("qhd,shd->hqs", q, k) / dim**0.5
    torch.testing.assert_close(module.scores(query, memory), scores, atol=1e-5, rtol=1e-5)
    attended = torch.einsum("hqs,shd->qhd", scores.softmax(-1), v.view(-1, heads, dim)).flatten(1)
    torch.testing.assert_close(module(query, memory), module.proj(attended), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_masks_fuse_the_heads_with_the_published_layers() -> None:
    torch.manual_seed(5)
    module = MaskAttention(16, 2)
    query, memory = torch.randn(9, 16), torch.randn(30, 16)
    expected = module.linear(module.linear_l1(module.scores(query, memory).permute(1, 2, 0)))[..., 0]
    torch.testing.assert_close(module.masks(query, memory), expected)
    assert expected.max() > 0


def test_losses_on_every_output_reach_the_bev() -> None:
    bev = torch.randn(64, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    decoding = head()(bev)
    outputs = (decoding.logits, decoding.references[-1], decoding.thing_masks, decoding.stuff_mask, decoding.tokens)
    for output in outputs:
        (gradient,) = torch.autograd.grad(output.sum(), bev, retain_graph=True)
        assert gradient.abs().sum() > 0


@torch.no_grad()
def test_half_precision_keeps_references_logits_and_masks_in_single() -> None:
    bev = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        decoding = head()(bev)
    for output in (*decoding.references, decoding.logits, decoding.thing_masks, decoding.stuff_mask):
        assert output.dtype == torch.float32
    torch.testing.assert_close(decoding.references[-1], decode().references[-1], atol=0.05, rtol=0)


def test_a_mask_scores_by_its_mean_value_inside() -> None:
    masks = torch.zeros(3, 4, 4)
    masks[0, 0] = 0.6
    masks[1, :2] = 0.9
    masks[2] = 0.5  # not above the threshold
    ranking = rank_masks(masks, torch.tensor([0.8, 0.5, 0.9]))
    assert ranking.order.tolist() == [1, 0, 2]
    assert ranking.scores.tolist() == pytest.approx([0.5 * (8 * 0.9 / 9) ** 2, 0.8 * (4 * 0.6 / 5) ** 2, 0.0])


def strip(first: int, last: int) -> np.ndarray:
    """A mask of the rows from first up to last of a 10 x 10 grid."""
    mask = np.zeros((10, 10), dtype=bool)
    mask[first:last] = True
    return mask


DIVIDER, BOUNDARY = 0, 2


@pytest.mark.parametrize(("published", "accepted"), [(False, [0]), (True, [0, 1])])
def test_a_mask_under_a_divider_is_refused_unless_published(published: bool, accepted: list[int]) -> None:
    config = with_quirk(SMALL, divider_paints_nothing=published)
    masks, labels = np.stack([strip(0, 4), strip(1, 4)]), np.array([DIVIDER, BOUNDARY])
    ranks, lane = merge_masks(masks, labels, np.array([0.9, 0.8], dtype=np.float32), config)
    assert ranks == accepted
    assert lane[DIVIDER].sum() == 40
    assert lane[BOUNDARY].sum() == (30 if published else 0)


@pytest.mark.parametrize(("second", "accepted"), [(strip(4, 9), [0, 1]), (strip(3, 8), [0])])
def test_an_overlap_of_two_fifths_is_the_most_that_is_accepted(second: np.ndarray, accepted: list[int]) -> None:
    masks, labels = np.stack([strip(0, 6), second]), np.array([BOUNDARY, BOUNDARY])
    ranks, lane = merge_masks(masks, labels, np.array([0.9, 0.8], dtype=np.float32), SMALL)
    assert ranks == accepted
    np.testing.assert_array_equal(lane[BOUNDARY], masks[accepted].any(0))


def test_weak_and_empty_masks_are_refused() -> None:
    masks, labels = np.stack([strip(0, 0), strip(0, 2), strip(4, 6)]), np.array([0, 1, 2])
    ranks, _ = merge_masks(masks, labels, np.array([0.9, 0.1, 0.0999], dtype=np.float32), SMALL)
    assert ranks == [1]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12), st.booleans())
def test_merging_never_accepts_too_much_overlap(seed: int, count: int, published: bool) -> None:
    config = with_quirk(SMALL, divider_paints_nothing=published)
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 8, (count, 2))
    masks = np.zeros((count, 10, 10), dtype=bool)
    for mask, (row, column) in zip(masks, corners, strict=True):
        mask[row : row + 4, column : column + 5] = True
    labels = generator.integers(0, 3, count)
    scores = np.sort(generator.random(count).astype(np.float32))[::-1]
    ranks, lane = merge_masks(masks, labels, scores, config)
    assert ranks == sorted(set(ranks))
    assert all(scores[rank] >= config.mask_score for rank in ranks)
    if not published:
        assert lane.sum(0).max(initial=0) <= 1
        np.testing.assert_array_equal(lane.any(0), masks[ranks].any(0) if ranks else np.zeros((10, 10), bool))
    elif not (labels == DIVIDER).any():
        again, _ = merge_masks(masks, labels, scores, SMALL)
        assert ranks == again
