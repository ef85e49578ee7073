"""The attention and feed-forward blocks that encoder, track head and map head share, under their published names."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.perception.deformable import sample_cells
from opendrivevla_ros.perception.transforms import softmax_of_few

FEW_POINTS = 8  # up to which softmax_of_few is faster than softmax


class DeformableAttention(nn.Module):
    """Deformable attention to feature maps (Deformable DETR, arXiv 2010.04159, section 4.1).

    levels: how many maps the sampling offsets are made for. The map head of the published model makes them for four
    and gives one map, which its CUDA kernel then misreads; `misstrided` computes what that kernel computes. Without
    it, the points of all levels sample the one map.
    """

    def __init__(self, embed_dim: int, heads: int, levels: int, points: int, *, misstrided: bool = False) -> None:
        super().__init__()
        self.heads, self.levels, self.points, self.misstrided = heads, levels, points, misstrided
        self.sampling_offsets = nn.Linear(embed_dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(embed_dim, heads * levels * points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        spread_sampling_offsets(self.sampling_offsets, heads, points)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        references: Tensor,
        shapes: Sequence[tuple[int, int]],
        query_position: Tensor | None = None,
    ) -> Tensor:
        """query [B, Q, C], value [B, S, C] -> [B, Q, C], without the residual.

        references: [B, Q, 1 or L, 2] points (x, y) or [..., 4] boxes (cx, cy, w, h), in [0, 1].
        shapes: (height, width) of each map in `value`; S is their total.
        """
        batch, queries, _ = query.shape
        heads, levels, points = self.heads, self.levels, self.points
        if query_position is not None:
            query = query + query_position
        projected = self.value_proj(value).view(batch, value.shape[1], heads, -1)
        misread = self.misstrided and len(shapes) < levels
        if misread:  # only the first queries' entries are ever read, see `read_with_one_level_stride`
            used = -(-queries // levels)
            query, references = query[:, :used], references[:, :used]
        x, y, weights = sampling_entries(self.sampling_offsets, self.attention_weights, query)
        weights = weights.view(batch, -1, heads, levels * points)
        weights = weights.softmax(-1) if levels * points > FEW_POINTS else softmax_of_few(weights)
        entries = (batch, -1, heads, levels, points)
        x, y, weights = x.view(entries), y.view(entries), weights.view(entries)
        size = query.new_tensor([[width, height] for height, width in shapes])
        # [B, Q, 1, L, 1]: reference points in cells; 0 is the centre of the first cell
        centre_x, centre_y = (references[..., :2] * size - 0.5).unsqueeze(2).unsqueeze(-2).unbind(-1)
        if references.shape[-1] == 4:  # offsets are shares of half the box, not cells
            reach_x, reach_y = (references[..., 2:] * (size * 0.5 / points)).unsqueeze(2).unsqueeze(-2).unbind(-1)
            x, y = x * reach_x, y * reach_y
        samples = [centre_x + x, centre_y + y, weights]
        if misread:
            samples = [read_with_one_level_stride(part, queries) for part in samples]
        elif len(shapes) < levels:
            samples = [part.flatten(3, 4).unsqueeze(3) for part in samples]
        source = torch.arange(batch, device=query.device).repeat_interleave(queries) if batch > 1 else None
        x, y, weights = (part.flatten(0, 1) for part in samples)
        return self.output_proj(sample_cells(projected, shapes, x, y, weights, source).view(batch, queries, -1))


def sampling_entries(offsets: nn.Linear, weights: nn.Linear, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The x offsets, y offsets and raw weights [..., entries] of a query, in one matrix product.

    The layer of offsets has x and y in turn; apart, all that follows is computed on contiguous numbers.
    """
    weight = torch.cat([offsets.weight[0::2], offsets.weight[1::2], weights.weight])
    bias = torch.cat([offsets.bias[0::2], offsets.bias[1::2], weights.bias])
    x, y, raw = F.linear(query, weight, bias).chunk(3, -1)
    return x, y, raw


def read_with_one_level_stride(entries: Tensor, queries: int) -> Tensor:
    """Entries [B, q, H, L, P, ...] of the first queries, read as if there were one level: [B, Q, H, 1, P, ...].

    The published kernel takes its stride from the number of maps (one), so that query q, head h gets the flat group
    8q + h: the entries that were made for query g // 32, head g // 4 % 8, level g % 4 (with 8 heads, 4 levels).
    The published weights were trained this way (T1).
    """
    batch, _, heads, _, points = entries.shape[:5]
    return entries.reshape(batch, -1, points, *entries.shape[5:])[:, : queries * heads].reshape(
        batch, queries, heads, 1, points, *entries.shape[5:]
    )


def spread_sampling_offsets(linear: nn.Linear, heads: int, points: int) -> None:
    """Starts a layer of sampling offsets with each head looking one way, and point p at p + 1 cells that way."""
    angles = torch.arange(heads) * (2 * torch.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, points + 1).view(1, 1, points, 1)
    groups = linear.out_features // (heads * points * 2)
    nn.init.zeros_(linear.weight)
    with torch.no_grad():
        linear.bias.copy_((directions.view(heads, 1, 1, 2) * steps).repeat(1, groups, 1, 1).flatten())


class SelfAttention(nn.Module):
    """Multi-head attention among queries; the position is added to queries and keys, not to values."""

    def __init__(self, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(embed_dim, heads, batch_first=True)

    def forward(self, query: Tensor, query_position: Tensor | None = None) -> Tensor:
        """query, query_position [B, Q, C] -> [B, Q, C], without the residual."""
        key = query if query_position is None else query + query_position
        return self.attn(key, key, query, need_weights=False)[0]


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, and the residual: [..., C] -> [..., C]."""

    def __init__(self, embed_dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(embed_dim, ffn_dim), nn.ReLU(inplace=True)), nn.Linear(ffn_dim, embed_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
