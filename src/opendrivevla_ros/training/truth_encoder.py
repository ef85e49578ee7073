"""The truth of a moment as features of the width that perception gives."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from opendrivevla_ros.language.model import Features
from opendrivevla_ros.training.language_samples import AGENT_NUMBERS, LINE_NUMBERS


class TruthEncoder(nn.Module):
    """True agents and lines (see `language_samples.true_features`) to features of the width that perception gives."""

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.agents = _encoder(AGENT_NUMBERS, feature_size)
        self.lines = _encoder(LINE_NUMBERS, feature_size)

    def forward(self, truths: Sequence[Features]) -> list[Features]:
        """[A, AGENT_NUMBERS] and [M, LINE_NUMBERS] of each moment to [A, C] and [M, C]."""
        truths = [truth.to(next(self.parameters()).device) for truth in truths]
        agents = together(self.agents, [truth.agents for truth in truths])
        lines = together(self.lines, [truth.map_elements for truth in truths])
        return [Features(None, some, others) for some, others in zip(agents, lines, strict=True)]


def together(encode: Callable[[Tensor], Tensor], blocks: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Encodes the rows [n, ...] of all blocks at once, and takes them apart again. Every block must be there."""
    rows = [block.float() for block in blocks if block is not None]
    assert len(rows) == len(blocks)
    return encode(torch.cat(rows)).split([len(some) for some in rows])


def _encoder(numbers: int, feature_size: int) -> nn.Module:
    wide = 2 * feature_size
    return nn.Sequential(
        nn.Linear(numbers, wide), nn.GELU(), nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, feature_size)
    )
