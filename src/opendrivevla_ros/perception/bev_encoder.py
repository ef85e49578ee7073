"""BEVFormer's encoder: camera features and the previous bird's-eye view to the present one (arXiv 2203.17270).

From the smallest module to the whole: temporal self-attention, spatial cross-attention, layer, encoder, transformer.
S is the number of BEV cells, C the embedding width, F the number of positions of all pyramid levels of one camera.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from opendrivevla_ros.perception.attention import FeedForward, sampling_entries, spread_sampling_offsets
from opendrivevla_ros.perception.bev_geometry import (
    PillarProjection,
    cell_centres,
    ego_motion_shift,
    pillar_points,
    project_pillars,
)
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.deformable import sample_cells
from opendrivevla_ros.perception.transforms import rotate_bev, softmax_of_few

TEMPORAL_STREAMS = 2  # the previous BEV and the present one


class TemporalSelfAttention(nn.Module):
    """Deformable attention to the previous and the present BEV, averaged (section 3.4)."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        dim, self.heads, self.points = config.embed_dim, config.heads, config.temporal_points
        entries = self.heads * TEMPORAL_STREAMS * self.points
        self.shape = (config.bev_size, config.bev_size)  # rows, columns
        self.sampling_offsets = nn.Linear(2 * dim, entries * 2)
        self.attention_weights = nn.Linear(2 * dim, entries)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        spread_sampling_offsets(self.sampling_offsets, self.heads, self.points)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(self, query: Tensor, positions: Tensor, values: Tensor, references: Tensor) -> Tensor:
        """query, positions [S, C]; values [2, S, C]; references [2, S, 2] in [0, 1] -> [S, C], without the residual.

        values[0], unprojected, together with the query decides where to look.
        """
        cells, dim = query.shape
        both = torch.cat([values[0], query + positions], -1)
        rows, columns = self.shape
        entries = (cells, self.heads, TEMPORAL_STREAMS, self.points)
        x, y, weights = (
            part.view(entries) for part in sampling_entries(self.sampling_offsets, self.attention_weights, both)
        )
        # the two streams are averaged: half of the weight each, then one sum over both as if they were two levels
        weights = softmax_of_few(weights) / TEMPORAL_STREAMS
        centres = references * references.new_tensor([columns, rows]) - 0.5
        # [S, 1, 2 streams, P]
        centre_x, centre_y = centres.permute(2, 1, 0)[:, :, None, :, None].expand(-1, -1, -1, -1, self.points)
        x, y = x + centre_x.contiguous(), y + centre_y.contiguous()
        value = self.value_proj(values).view(1, TEMPORAL_STREAMS * cells, self.heads, dim // self.heads)
        return self.output_proj(sample_cells(value, [self.shape] * TEMPORAL_STREAMS, x, y, weights))


class CameraSampling(nn.Module):
    """What the spatial attention learns about one camera: sampling offsets, weights and the value projection."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        entries = config.heads * config.feature_levels * config.spatial_points
        self.sampling_offsets = nn.Linear(config.embed_dim, entries * 2)
        self.attention_weights = nn.Linear(config.embed_dim, entries)
        self.value_proj = nn.Linear(config.embed_dim, config.embed_dim)
        spread_sampling_offsets(self.sampling_offsets, config.heads, config.spatial_points)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)


class SpatialCrossAttention(nn.Module):
    """Deformable attention of every BEV cell to the cameras that see its pillar, averaged over them (section 3.3)."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self.heads, self.levels, self.points = config.heads, config.feature_levels, config.spatial_points
        self.pillar_points = config.pillar_points
        self.deformable_attention = CameraSampling(config)
        self.output_proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(
        self, query: Tensor, features: Tensor, shapes: Sequence[tuple[int, int]], pillars: PillarProjection
    ) -> Tensor:
        """query [S, C], features [cameras, F, C], shapes of the levels -> [S, C], without the residual."""
        cells, dim = query.shape
        sampling = self.deformable_attention
        heads, levels, points = self.heads, self.levels, self.points
        x, y, weights = sampling_entries(sampling.sampling_offsets, sampling.attention_weights, query)
        # the average over the cameras that see the cell becomes part of the weights
        weights = weights.view(cells, heads, levels * points).softmax(-1) * pillars.cell_share.unsqueeze(-1)
        value = sampling.value_proj(features).view(*features.shape[:2], heads, dim // heads)
        cell = pillars.pair_cell
        centre_x, centre_y = self._centres(pillars, shapes)
        entries = (len(cell), heads, levels * points)
        x, y, weights = x[cell].view(entries) + centre_x, y[cell].view(entries) + centre_y, weights[cell]
        x, y, weights = (part.view(*entries[:2], levels, points) for part in (x, y, weights))
        sampled = sample_cells(value, shapes, x, y, weights, pillars.pair_camera)
        summed = sampled.new_zeros(cells, dim).index_add_(0, cell, sampled)
        return self.output_proj(summed)

    def _centres(self, pillars: PillarProjection, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """The pairs' pillar points in cells of each level, x and y, for each of a head's points: [2, N, 1, L * P].

        A head's points go over the pillar's points in turn: the pillar index changes fastest.
        """
        size = pillars.points.new_tensor(shapes).flip(1).t()[:, None, :, None]  # [2, 1, L, 1]
        places = pillars.pair_points.permute(2, 0, 1)[:, :, None] * size - 0.5  # [2, N, L, Z]
        return places.repeat(1, 1, 1, self.points // self.pillar_points).flatten(2).unsqueeze(2)


class EncoderLayer(nn.Module):
    """Temporal attention, spatial attention and a feed-forward block, each added and normalised."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([TemporalSelfAttention(config), SpatialCrossAttention(config)])
        self.ffns = nn.ModuleList([FeedForward(config.embed_dim, config.ffn_dim)])
        self.norms = nn.ModuleList(nn.LayerNorm(config.embed_dim) for _ in range(3))

    def forward(
        self,
        query: Tensor,
        positions: Tensor,
        values: Tensor,
        references: Tensor,
        features: Tensor,
        shapes: Sequence[tuple[int, int]],
        pillars: PillarProjection,
    ) -> Tensor:
        """query, positions [S, C]; values [2, S, C]; references [2, S, 2]; features [cameras, F, C] -> [S, C]."""
        temporal, spatial = self.attentions
        query = self.norms[0](query + temporal(query, positions, values, references))
        query = self.norms[1](query + spatial(query, features, shapes, pillars))
        return self.norms[2](self.ffns[0](query))


class BevEncoder(nn.Module):
    """The stack of encoder layers.

    gradient_checkpointing: where gradients are wanted, keep no layer's inside but compute it again on the way back.
    """

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        features: Tensor,
        shapes: Sequence[tuple[int, int]],
        pillars: PillarProjection,
        shift: Tensor,
        previous_bev: Tensor | None,
    ) -> Tensor:
        """queries, positions [S, C]; features [cameras, F, C]; shift [2]; previous_bev [S, C] or None -> [S, C]."""
        quirks = self.config.quirks
        present = cell_centres(self.config.bev_size, queries.device)
        shifted = present + shift.to(queries.device)
        if quirks.shift_leaks:  # T3: the published code shifts the present's reference points in place as well
            references = torch.stack([shifted, shifted])
        else:
            references = torch.stack([present if previous_bev is None else shifted, present])
        query = queries
        for layer in self.layers:
            if previous_bev is None:
                values = torch.stack([query, query])
            else:  # T4: the published code stacks the values once, before the first layer
                values = torch.stack([previous_bev, queries if quirks.fixed_temporal_values else query])
            inputs = (query, positions, values, references, features, shapes, pillars)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                query = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                query = layer(*inputs)
        return query


class BevTransformer(nn.Module):
    """Pyramid levels, calibration and ego motion to the BEV; it also holds the track decoder, as published.

    The pillars' projection is kept for as long as the calibration stays the same.
    """

    def __init__(self, config: PerceptionConfig, decoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.level_embeds = nn.Parameter(torch.randn(config.feature_levels, dim))
        self.cams_embeds = nn.Parameter(torch.randn(config.cameras, dim))
        self.can_bus_mlp = nn.Sequential(
            OrderedDict(
                [
                    ("0", nn.Linear(config.can_bus_dim, dim // 2)),
                    ("1", nn.ReLU()),
                    ("2", nn.Linear(dim // 2, dim)),
                    ("3", nn.ReLU()),
                    ("norm", nn.LayerNorm(dim)),
                ]
            )
        )
        self.encoder = BevEncoder(config)
        self.decoder = decoder
        self._calibration: Tensor | None = None
        self._pillars: PillarProjection | None = None

    def forward(
        self,
        bev_queries: Tensor,
        positions: Tensor,
        pyramid: Sequence[Tensor],
        lidar_to_image: Tensor,
        can_bus: Tensor,
        previous_bev: Tensor | None,
    ) -> Tensor:
        """The BEV of one frame: [S, C].

        bev_queries, positions: [S, C]. pyramid: [cameras, C, h, w] of each level. lidar_to_image: [cameras, 4, 4] in
        pixels of the model's picture. can_bus: float64 [18], position and heading as differences to the previous
        frame. previous_bev: [S, C] as this method returned it, or None at a scene's first frame.
        """
        shift = ego_motion_shift(can_bus, self.config)
        if previous_bev is not None:
            previous_bev = rotate_bev(previous_bev, float(can_bus[17]))
        queries = bev_queries + self.can_bus_mlp(can_bus.to(bev_queries)[None])
        shapes = [(level.shape[2], level.shape[3]) for level in pyramid]
        camera = self.cams_embeds[:, None]
        features = torch.cat(
            [
                level.flatten(2).transpose(1, 2) + camera + embedding
                for level, embedding in zip(pyramid, self.level_embeds, strict=True)
            ],
            1,
        )
        pillars = self._project(lidar_to_image, bev_queries.device)
        return self.encoder(queries, positions, features, shapes, pillars, shift, previous_bev)

    def _project(self, lidar_to_image: Tensor, device: torch.device) -> PillarProjection:
        known = self._calibration
        if (
            self._pillars is None
            or known is None
            or self._pillars.points.device != device
            or not torch.equal(known, lidar_to_image)
        ):
            points = pillar_points(self.config, device)
            self._pillars = project_pillars(points, lidar_to_image, self.config.padded_size)
            self._calibration = lidar_to_image.clone()
        return self._pillars
