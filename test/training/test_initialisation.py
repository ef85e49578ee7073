"""A network from nothing: rare classes, masks that can learn, attention that starts as projection."""

from dataclasses import replace

import pytest
import torch
from perception.test_network import CONFIG, frame
from training.samples import map_labels

from opendrivevla_ros.perception.bev_encoder import SpatialCrossAttention
from opendrivevla_ros.perception.network import PerceptionNetwork
from opendrivevla_ros.training.initialisation import CLASS_PRIOR, moved_queries, start_from_nothing
from opendrivevla_ros.training.perception_step import map_losses
from opendrivevla_ros.training.token_reader import TokenReader


def network(seed: int = 0) -> PerceptionNetwork:
    torch.manual_seed(seed)
    perception = PerceptionNetwork(replace(CONFIG, pillar_points=2, spatial_points=4))
    start_from_nothing(perception)
    return perception


def test_classes_start_rare():
    perception = network()
    bev = torch.randn(CONFIG.bev_size**2, CONFIG.embed_dim)
    decoding = perception.pts_bbox_head.decode(bev, torch.randn(50, 2 * CONFIG.embed_dim), torch.randn(50, 3))
    assert decoding.logits.sigmoid().median().item() == pytest.approx(CLASS_PRIOR, rel=0.5)
    assert perception.seg_head(bev).logits.sigmoid().median().item() == pytest.approx(CLASS_PRIOR, rel=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_every_mask_has_a_gradient_from_the_first_step_on(seed: int):
    perception = network(seed)
    bev = torch.randn(CONFIG.bev_size**2, CONFIG.embed_dim)
    losses, _ = map_losses(perception.seg_head, TokenReader(CONFIG), bev, map_labels(CONFIG.bev_size))
    for name, head in (("map_mask", "things_mask_head"), ("drivable_mask", "stuff_mask_head")):
        weight = perception.seg_head.get_submodule(head).attnen.q.weight
        (gradient,) = torch.autograd.grad(losses[name], weight, retain_graph=True)
        assert gradient.abs().sum() > 0, name


def test_a_head_looks_at_its_own_height_of_the_pillar():
    for module in network().modules():
        if isinstance(module, SpatialCrossAttention):
            sampling = module.deformable_attention
            weights = sampling.attention_weights.bias.view(module.heads, module.levels, module.points).softmax(-1)
            for head in range(module.heads):
                own = weights[head, :, torch.arange(module.points) % module.pillar_points == head % 2]
                assert (own.sum(-1) > 0.95).all()
            offsets = sampling.sampling_offsets.bias.view(module.heads, module.levels, module.points, 2)
            assert offsets.abs().max() < 0.5
            assert len(offsets[0, 0].unique(dim=0)) == module.points


def test_the_network_still_sees_a_frame():
    output = network().eval()(frame())
    assert output.map_tokens.isfinite().all()


def test_track_queries_start_spread_over_the_ground():
    torch.manual_seed(0)
    perception = PerceptionNetwork(CONFIG)
    start_from_nothing(perception)
    queries = perception.query_embedding.weight[: CONFIG.queries, : CONFIG.embed_dim]
    places = perception.reference_points(queries).sigmoid()[:, :2]
    distances = torch.cdist(places, places) + torch.eye(len(places))
    assert distances.min() > 0.3 / len(places) ** 0.5
    assert places.min() > 0.0
    assert places.max() < 1.0
    assert places.std(0).min() > 0.2  # of even places: 0.29


def test_learned_queries_can_be_moved_to_any_place():
    perception = network()
    dim = CONFIG.embed_dim
    places = torch.randn(30, 2)
    moved = moved_queries(perception, places)
    torch.testing.assert_close(perception.reference_points(moved[:, :dim])[:, :2], places, atol=1e-4, rtol=0)
    moved.sum().backward()
    gradient = perception.query_embedding.weight.grad
    assert gradient is not None
    assert gradient[:-1].any(1).sum() > 1, "only one learned query learns from all places"
    assert not gradient[-1].any(), "the ego's query is no object's"
    learned = perception.query_embedding.weight[:-1, dim:]
    assert (moved[:, None, dim:] == learned).all(-1).any(1).all(), "what a query says moved with its place"
