"""What a track remembers of itself, and how tracks see one another before they are handed to the next frame."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.tracks import Tracks


class MemoryBank(nn.Module):
    """Attention of each track to its own past embeddings (the memory bank of UniAD, arXiv 2212.10156, after MOTR).

    Tracks without a memory pass unchanged; every `memory_period` + 1 frames a projected embedding is stored.
    """

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.period = config.memory_period
        self.save_proj = nn.Linear(dim, dim)
        self.temporal_attn = nn.MultiheadAttention(dim, config.heads, batch_first=True)
        self.temporal_fc1 = nn.Linear(dim, dim)
        self.temporal_fc2 = nn.Linear(dim, dim)
        self.temporal_norm1 = nn.LayerNorm(dim)
        self.temporal_norm2 = nn.LayerNorm(dim)

    def forward(self, tracks: Tracks) -> Tracks:
        """Aggregate, then store."""
        embedding = self._aggregate(tracks)
        return self._store(replace(tracks, embedding=embedding))

    def _aggregate(self, tracks: Tracks) -> Tensor:
        known = (~tracks.memory_empty[:, -1]).nonzero()[:, 0]
        if len(known) == 0:
            return tracks.embedding
        x, memory = tracks.embedding[known], tracks.memory[known]
        # as attn_mask: the first key_padding_mask of a process makes torch import sympy, which takes a second
        hidden = tracks.memory_empty[known].repeat_interleave(self.temporal_attn.num_heads, dim=0)[:, None]
        attended, _ = self.temporal_attn(x[:, None], memory, memory, attn_mask=hidden, need_weights=False)
        x = self.temporal_norm1(x + attended[:, 0])
        x = self.temporal_norm2(x + self.temporal_fc2(functional.relu(self.temporal_fc1(x))))
        return tracks.embedding.index_copy(0, known, x.to(tracks.embedding))

    def _store(self, tracks: Tracks) -> Tracks:
        due = (tracks.save_period == 0) & (tracks.scores > 0)
        save_period = torch.where(due, self.period, (tracks.save_period - 1).clamp(min=0))
        newest = self.save_proj(tracks.embedding)[:, None].to(tracks.memory)
        shifted = torch.cat([tracks.memory[:, 1:], newest], dim=1)
        filled = torch.cat([tracks.memory_empty[:, 1:], torch.zeros_like(due)[:, None]], dim=1)
        return replace(
            tracks,
            memory=torch.where(due[:, None, None], shifted, tracks.memory),
            memory_empty=torch.where(due[:, None], filled, tracks.memory_empty),
            save_period=save_period,
        )


class QueryInteraction(nn.Module):
    """Attention among live tracks that turns their embeddings into the next frame's queries.

    The query interaction module of MOTR, arXiv 2105.03247.
    """

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.self_attn = nn.MultiheadAttention(dim, config.heads, batch_first=True)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.linear_pos1 = nn.Linear(dim, dim)
        self.linear_pos2 = nn.Linear(dim, dim)
        self.norm_pos = nn.LayerNorm(dim)
        self.linear_feat1 = nn.Linear(dim, dim)
        self.linear_feat2 = nn.Linear(dim, dim)
        self.norm_feat = nn.LayerNorm(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, tracks: Tracks) -> Tracks:
        """The tracks that hold an id, with new queries."""
        alive = tracks.select((tracks.ids >= 0).nonzero()[:, 0])
        if len(alive) == 0:
            return alive
        position, content = alive.query.chunk(2, dim=1)
        x = alive.embedding
        key = (position + x)[None]
        attended, _ = self.self_attn(key, key, x[None], need_weights=False)
        x = self.norm1(x + attended[0])
        x = self.norm2(x + self.linear2(functional.relu(self.linear1(x))))
        position = self.norm_pos(position + self.linear_pos2(functional.relu(self.linear_pos1(x))))
        content = self.norm_feat(content + self.linear_feat2(functional.relu(self.linear_feat1(x))))
        return replace(alive, query=torch.cat([position, content], dim=1))
