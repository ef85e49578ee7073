"""Sampling operators against grid sampling and plain convolution, and against the published kernels' outputs."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opendrivevla_ros.perception import deformable
from opendrivevla_ros.perception.deformable import (
    ModulatedDeformConv2d,
    modulated_deform_conv2d,
    multi_scale_deformable_attention,
)


@pytest.fixture(params=[True, False], ids=["with gradients", "without gradients"], autouse=True)
def gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways of sampling: the one that trains, and the one that drives."""
    with torch.set_grad_enabled(request.param):
        yield


def attention_by_grid_sampling(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Another way to the same numbers: bilinear grid sampling, level by level."""
    batch, _, heads, dim = value.shape
    queries = locations.shape[1]
    total = value.new_zeros(batch * heads, dim, queries)
    start = 0
    for level, (height, width) in enumerate(shapes):
        maps = value[:, start : start + height * width].permute(0, 2, 3, 1).reshape(-1, dim, height, width)
        start += height * width
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False)
        total += (sampled * weights[:, :, :, level].transpose(1, 2).reshape(-1, 1, queries, weights.shape[-1])).sum(-1)
    return total.view(batch, heads * dim, queries).transpose(1, 2)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    shapes=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3),
    dim=st.sampled_from([1, 3, 8, 16]),
)
def test_attention_equals_bilinear_grid_sampling_inside_and_outside_of_the_maps(
    seed: int, shapes: list[tuple[int, int]], dim: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    positions = sum(height * width for height, width in shapes)
    value = torch.randn(2, positions, 2, dim, generator=generator)
    locations = torch.rand(2, 5, 2, len(shapes), 3, 2, generator=generator) * 2 - 0.5
    weights = torch.rand(2, 5, 2, len(shapes), 3, generator=generator)
    actual = multi_scale_deformable_attention(value, shapes, locations, weights)
    torch.testing.assert_close(actual, attention_by_grid_sampling(value, shapes, locations, weights))


@pytest.mark.parametrize("far", [1e9, -1e9, 3.4e38, float("inf")])
def test_attention_far_outside_of_the_map_is_zero(far: float) -> None:
    value = torch.ones(1, 4, 1, 2)
    locations = torch.full((1, 1, 1, 1, 1, 2), far)
    assert multi_scale_deformable_attention(value, [(2, 2)], locations, torch.ones(1, 1, 1, 1, 1)).eq(0).all()


def test_attention_in_chunks_equals_attention_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    value, locations = torch.randn(1, 30, 2, 8), torch.rand(1, 40, 2, 1, 4, 2)
    weights = torch.rand(1, 40, 2, 1, 4)
    whole = multi_scale_deformable_attention(value, [(5, 6)], locations, weights)
    monkeypatch.setattr(deformable, "CHUNK_SAMPLES", 24)
    assert multi_scale_deformable_attention(value, [(5, 6)], locations, weights).equal(whole)


def test_attention_of_no_query_is_empty() -> None:
    nothing = torch.zeros(1, 0, 2, 1, 3)
    assert multi_scale_deformable_attention(
        torch.randn(1, 6, 2, 4), [(2, 3)], torch.zeros(1, 0, 2, 1, 3, 2), nothing
    ).shape == (1, 0, 8)


@pytest.mark.parametrize("gradients", [True], indirect=True)
def test_attention_gradients_reach_values_locations_and_weights() -> None:
    value = torch.randn(1, 12, 2, 3, dtype=torch.float64, requires_grad=True)
    locations = (torch.rand(1, 4, 2, 1, 2, 2, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    weights = torch.rand(1, 4, 2, 1, 2, dtype=torch.float64, requires_grad=True)

    def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return multi_scale_deformable_attention(value, [(3, 4)], locations, weights)

    assert torch.autograd.gradcheck(attend, (value, locations, weights))


def test_attention_refuses_values_that_do_not_match_their_maps() -> None:
    with pytest.raises(ValueError, match=r"value holds 5 positions, but its maps are \[\(2, 2\)\]"):
        multi_scale_deformable_attention(
            torch.zeros(1, 5, 1, 1), [(2, 2)], torch.zeros(1, 1, 1, 1, 1, 2), torch.zeros(1, 1, 1, 1, 1)
        )


@pytest.mark.parametrize("stride", [1, 2])
def test_deformable_convolution_without_offsets_is_a_convolution(stride: int) -> None:
    x, weight = torch.randn(2, 4, 9, 11), torch.randn(5, 4, 3, 3)
    expected = F.conv2d(x, weight, stride=stride, padding=1)
    height, width = expected.shape[-2:]
    offset, mask = torch.zeros(2, 18, height, width), torch.ones(2, 9, height, width)
    actual = modulated_deform_conv2d(x, offset, mask, weight, stride=stride, padding=1)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_deformable_convolution_with_whole_offsets_reads_the_shifted_picture() -> None:
    x, weight = torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3)
    offset = torch.zeros(1, 9, 2, 8, 8)
    offset[:, :, 0], offset[:, :, 1] = 1.0, -2.0  # one row down, two columns to the left
    actual = modulated_deform_conv2d(x, offset.flatten(1, 2), torch.full((1, 9, 8, 8), 0.5), weight)
    plain = 0.5 * F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(actual[:, :, 1:6, 3:8], plain[:, :, 2:7, 1:6], rtol=1e-4, atol=1e-4)


def test_a_new_deformable_layer_starts_as_a_convolution_of_half_strength() -> None:
    layer, x = ModulatedDeformConv2d(3, 4, stride=2), torch.randn(1, 3, 8, 10)
    expected = 0.5 * F.conv2d(x, layer.weight, stride=2, padding=1)  # the mask starts at sigmoid(0)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
