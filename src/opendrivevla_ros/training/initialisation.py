"""How a perception that learns from nothing starts: so that every part gets a gradient from the first step on."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.perception.bev_encoder import SpatialCrossAttention
from opendrivevla_ros.perception.map_merge import IN_MASK
from opendrivevla_ros.perception.network import PerceptionNetwork

CLASS_PRIOR = 0.01  # RetinaNet, arXiv 1708.02002, section 3.3
OFFSET_SHARE = 0.1  # of the usual offsets: near the projected point, yet no two points of a head alike
R2_STEPS = (0.7548777, 0.5698403)  # of the R2 sequence: 1/g and 1/g^2 with g^3 = g + 1
EDGE = 0.04  # share of the range at each side where no query starts
HEIGHT_PREFERENCE = 4.0  # logit of a head's own height over the others: 0.95 of the attention among four heights


@torch.no_grad()
def start_from_nothing(perception: PerceptionNetwork) -> None:
    """Sets what the default initialisation leaves to chance; for a network without trained weights only.

    Classes start rare, so that background does not drown the loss. Masks start at the edge between inside and
    outside: a mask network whose last ReLU starts at 0 everywhere would stay there. Spatial attention starts as plain
    projection: head k looks where height k of a cell's pillar is seen. Track queries start spread over the ground:
    left to chance, all would start near the ego, and which of them answers for what would change from step to step.
    """
    for branch in (*perception.pts_bbox_head.cls_branches, *perception.seg_head.cls_branches):
        nn.init.constant_(_last_linear(branch).bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
    for head in (perception.seg_head.things_mask_head, perception.seg_head.stuff_mask_head):
        nn.init.constant_(_last_linear(head.attnen.linear).bias, IN_MASK)
    for module in perception.modules():
        if isinstance(module, SpatialCrossAttention):
            _look_along_the_pillar(module)
    _spread_queries(perception)


def _look_along_the_pillar(attention: SpatialCrossAttention) -> None:
    sampling, heights = attention.deformable_attention, attention.pillar_points
    sampling.sampling_offsets.bias.mul_(OFFSET_SHARE)
    own_height = torch.arange(attention.heads)[:, None] % heights == torch.arange(attention.points) % heights
    bias = HEIGHT_PREFERENCE * own_height[:, None].expand(-1, attention.levels, -1).float()
    sampling.attention_weights.bias.copy_(bias.flatten())


def _spread_queries(perception: PerceptionNetwork) -> None:
    """Moves each query's position half by the least that puts its reference on a low-discrepancy sequence."""
    table, layer = perception.query_embedding.weight, perception.reference_points
    count, dim = perception.config.queries, perception.config.embed_dim
    places = (0.5 + torch.arange(1, count + 1)[:, None] * torch.tensor(R2_STEPS)) % 1.0
    wanted = torch.cat([(EDGE + (1 - 2 * EDGE) * places).logit(), torch.zeros(count, 1)], 1)
    positions = table[:count, :dim]
    positions += _least_move(layer, wanted - layer(positions))


def moved_queries(perception: PerceptionNetwork, places: Tensor) -> Tensor:
    """For each of places [P, 2] (x, y, before the sigmoid) the nearest learned query, moved there: [P, 2C].

    Gradients flow to the learned query as if it had not been moved.
    """
    layer, dim = perception.reference_points, perception.config.embed_dim
    learned = perception.query_embedding.weight[:-1]  # the last is the ego's
    with torch.no_grad():
        references = layer(learned[:, :dim])
        nearest = torch.cdist(places.sigmoid(), references[:, :2].sigmoid()).argmin(1)
        missing = F.pad(places - references[nearest, :2], (0, 1))
        move = F.pad(_least_move(layer, missing), (0, dim))
    return learned[nearest] + move


def _least_move(layer: nn.Linear, outputs: Tensor) -> Tensor:
    """The smallest change of the inputs that changes the layer's outputs by this much."""
    return outputs @ torch.linalg.pinv(layer.weight).T


def _last_linear(branch: nn.Module) -> nn.Linear:
    return [module for module in branch.modules() if isinstance(module, nn.Linear)][-1]
