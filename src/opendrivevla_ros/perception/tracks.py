"""Track queries: everything the tracker knows about each of them, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from opendrivevla_ros.perception.config import PerceptionConfig

UNTRACKED = -1
EGO = -2
BOX_CODE = 10  # cx, cy, log w, log l, cz, log h, sin yaw, cos yaw, vx, vy


@dataclass(frozen=True)
class Tracks:
    """N track queries, C channels, M memory slots (UniAD, arXiv 2212.10156, section 3.1; MOTR, arXiv 2105.03247).

    query: [N, 2C] position and content. reference: [N, 3] place in the perceived range, before the sigmoid.
    embedding: [N, C] last decoder state. ids: [N] int64, UNTRACKED or EGO where there is none. missed: [N] int64, how
    often the score was too low since it was last high. scores: [N]. logits: [N, classes]. boxes: [N, 10] box code,
    metres, lidar frame. memory: [N, M, C] past embeddings, newest last. memory_empty: [N, M] bool. save_period: [N]
    int64 frames until the next memory may be stored.
    """

    query: Tensor
    reference: Tensor
    embedding: Tensor
    ids: Tensor
    missed: Tensor
    scores: Tensor
    logits: Tensor
    boxes: Tensor
    memory: Tensor
    memory_empty: Tensor
    save_period: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Tensor) -> "Tracks":
        """The given rows (indices or a bool mask), in that order."""
        return Tracks(*(getattr(self, name.name)[rows] for name in fields(self)))


def join(parts: Sequence[Tracks]) -> Tracks:
    """The rows of all parts, one after the other."""
    return Tracks(*(torch.cat([getattr(part, name.name) for part in parts]) for name in fields(Tracks)))


def fresh_tracks(query: Tensor, reference: Tensor, config: PerceptionConfig) -> Tracks:
    """Unassigned tracks for the learned queries [queries + 1, 2C], [queries + 1, 3]; the last row is the ego query."""
    count, device = len(query), query.device
    ids = torch.full((count,), UNTRACKED, device=device)
    ids[config.queries] = EGO
    return Tracks(
        query=query,
        reference=reference,
        embedding=query.new_zeros(count, config.embed_dim),
        ids=ids,
        missed=torch.zeros_like(ids),
        scores=query.new_zeros(count),
        logits=query.new_zeros(count, config.classes),
        boxes=query.new_zeros(count, BOX_CODE),
        memory=query.new_zeros(count, config.memory_length, config.embed_dim),
        memory_empty=torch.ones(count, config.memory_length, dtype=torch.bool, device=device),
        save_period=torch.zeros_like(ids),
    )
