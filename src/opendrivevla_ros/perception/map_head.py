"""The map head: BEV features to masks of dividers, crossings, boundaries and the drivable area, and their tokens.

Panoptic SegFormer (arXiv 2109.03814) on the BEV, as in UniAD (arXiv 2212.10156, section 3.1).
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from opendrivevla_ros.perception.attention import DeformableAttention, FeedForward
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.decoder import Decoder
from opendrivevla_ros.perception.map_merge import IN_MASK, merge_masks, rank_masks
from opendrivevla_ros.perception.mask_head import MaskHead
from opendrivevla_ros.perception.positions import sine_positions
from opendrivevla_ros.perception.transforms import inverse_sigmoid, regression_branch


@dataclass(frozen=True)
class MapResult:
    """What was accepted, on the BEV grid of n x n cells (row 0 rear, column 0 left, see `PerceptionConfig`).

    masks: bool [k, n, n], best first; masks may overlap. labels: int64 [k] in MAP_CLASSES. scores: [k], not bounded
    by 1. drivable: bool [n, n]. lane: bool [things, n, n], the cells that each class painted.
    """

    masks: Tensor
    labels: Tensor
    scores: Tensor
    drivable: Tensor
    lane: Tensor


@dataclass(frozen=True)
class MapDecoding:
    """Every stage of the map head: Q queries, K candidates (query and label), k accepted.

    memory: [S, C] encoded BEV. hidden: [layers, Q, C]. references: per layer [Q, 2] or [Q, 4], the initial ones first.
    logits: [Q, things] of the last layer. top_query, top_label, top_score: [K] candidates by falling class score.
    things: [K, C] and stuff: [1, C] after the mask heads. thing_masks: [K, n, n]. stuff_mask: [n, n]. rank_to_top,
    rank_score: [K], the candidates after rescoring. accepted_ranks: the k accepted. tokens: [k + 1, C], the drivable
    area's last.
    """

    memory: Tensor
    hidden: Tensor
    references: tuple[Tensor, ...]
    logits: Tensor
    top_query: Tensor
    top_label: Tensor
    top_score: Tensor
    things: Tensor
    stuff: Tensor
    thing_masks: Tensor
    stuff_mask: Tensor
    rank_to_top: Tensor
    rank_score: Tensor
    accepted_ranks: list[int]
    tokens: Tensor
    result: MapResult


class MapHead(nn.Module):
    """Deformable encoder and decoder, mask heads, and the merging of masks.

    Some parameters serve only the training losses, or nothing at all: they are kept for the published keys.
    """

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self.config = config
        dim, things = config.embed_dim, config.map_things
        self.transformer = _MapTransformer(config)
        self.bev_embedding = nn.Embedding(config.bev_size**2, dim)
        self.query_embedding = nn.Embedding(config.map_queries, 2 * dim)
        self.stuff_query = nn.Embedding(1, 2 * dim)
        self.cls_branches = nn.ModuleList(nn.Linear(dim, things) for _ in range(config.map_layers))
        self.reg_branches = nn.ModuleList(regression_branch(dim, 4) for _ in range(config.map_layers))
        self.reg_branches2 = nn.ModuleList(regression_branch(dim, 4) for _ in range(config.thing_blocks))
        self.cls_thing_branches = nn.ModuleList(nn.Linear(dim, things) for _ in range(config.thing_blocks))
        self.cls_stuff_branches = nn.ModuleList(nn.Linear(dim, 1) for _ in range(config.stuff_blocks))
        self.things_mask_head = MaskHead(config, config.thing_blocks, self_attention=False)
        self.stuff_mask_head = MaskHead(
            config,
            config.stuff_blocks,
            self_attention=True,
            position_in_residual=config.quirks.stuff_position_in_residual,
        )

    def forward(self, bev: Tensor) -> MapDecoding:
        """BEV features [S, C], row by row, to map elements."""
        config, side = self.config, self.config.bev_size
        memory = self.transformer.encode(bev)
        hidden, references = self._decode(memory)
        logits = self.cls_branches[-1](hidden[-1]).float()
        top_score, top = logits.sigmoid().flatten().topk(min(config.map_masks, logits.numel()))
        top_query, top_label = top // config.map_things, top % config.map_things

        # a query is a candidate once for each of its labels, with the same mask
        distinct, candidate = top_query.unique(return_inverse=True)
        things, thing_masks = self.things_mask_head(hidden[-1][distinct], memory)
        things, thing_masks = things[candidate], thing_masks[candidate].view(-1, side, side)
        content, position = self.stuff_query.weight.chunk(2, dim=1)  # the other tables have the position first
        stuff, stuff_mask = self.stuff_mask_head(content, memory, position)

        ranking = rank_masks(thing_masks, top_score)
        masks = thing_masks[ranking.order] > IN_MASK
        labels = top_label[ranking.order]
        accepted, lane = merge_masks(
            masks.cpu().numpy(), labels.cpu().numpy(), ranking.scores.detach().cpu().numpy(), config
        )
        # T6: the published code uses ranks to index the candidates, which it has not sorted by rank
        chosen = accepted if config.quirks.rank_as_query_index else ranking.order[accepted]
        drivable = stuff_mask[0].view(side, side)
        return MapDecoding(
            memory=memory,
            hidden=torch.stack(hidden),
            references=tuple(references),
            logits=logits,
            top_query=top_query,
            top_label=top_label,
            top_score=top_score,
            things=things,
            stuff=stuff,
            thing_masks=thing_masks,
            stuff_mask=drivable,
            rank_to_top=ranking.order,
            rank_score=ranking.scores,
            accepted_ranks=accepted,
            tokens=torch.cat([things[chosen], stuff]),
            result=MapResult(
                masks=masks[accepted],
                labels=labels[accepted],
                scores=ranking.scores[accepted],
                drivable=drivable > IN_MASK,
                lane=torch.from_numpy(lane).to(bev.device),
            ),
        )

    def _decode(self, memory: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Queries after each layer, and boxes (cx, cy, w, h) in [0, 1] after each; points (x, y) before the first."""
        position, content = self.query_embedding.weight.chunk(2, dim=1)

        def refine(layer: int, hidden: Tensor, before: Tensor) -> Tensor:
            code = self.reg_branches[layer](hidden).float()
            known = before.shape[1]
            return torch.cat([code[:, :known] + inverse_sigmoid(before), code[:, known:]], dim=1).sigmoid()

        points = self.transformer.reference_points(position).float().sigmoid()
        return self.transformer.decoder(content, position, memory, points, refine)


class _EncoderLayer(nn.Module):
    """Deformable self-attention over the BEV and feed-forward, each with residual, then layer norm."""

    def __init__(self, config: PerceptionConfig, attention: DeformableAttention) -> None:
        super().__init__()
        dim = config.embed_dim
        self.attentions = nn.ModuleList([attention])
        self.ffns = nn.ModuleList([FeedForward(dim, config.ffn_dim)])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, x: Tensor, position: Tensor, references: Tensor, shape: tuple[int, int]) -> Tensor:
        """x, position: [1, S, C]; references: [1, S, 1, 2] -> [1, S, C]."""
        x = self.norms[0](x + self.attentions[0](x, x, references, [shape], position))
        return self.norms[1](self.ffns[0](x))


class _Encoder(nn.Module):
    def __init__(self, config: PerceptionConfig, attention: partial[DeformableAttention]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_EncoderLayer(config, attention()) for _ in range(config.map_layers))


class _MapTransformer(nn.Module):
    """The encoder and decoder under their published names."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.side = config.bev_size
        attention = partial(
            DeformableAttention,
            dim,
            config.heads,
            config.map_attention_levels,
            config.map_points,
            misstrided=config.quirks.misstrided_map_attention,
        )
        self.level_embeds = nn.Parameter(torch.randn(config.map_attention_levels, dim))  # only the first is used
        self.encoder = _Encoder(config, attention)
        self.decoder = Decoder(config, config.map_layers, attention)
        self.reference_points = nn.Linear(dim, 2)

    def encode(self, bev: Tensor) -> Tensor:
        """BEV features [S, C] to memory [S, C]."""
        side = self.side
        table = sine_positions(side, side, bev.shape[1] // 2, bev.device).flatten(1).T
        position = (table.to(bev.dtype) + self.level_embeds[0])[None]
        centres = (torch.arange(side, device=bev.device, dtype=bev.dtype) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        references = torch.stack([x, y], dim=-1).view(1, -1, 1, 2)
        memory = bev[None]
        for layer in self.encoder.layers:
            memory = layer(memory, position, references, (side, side))
        return memory[0]
