"""The truth of a moment as features of the width that perception gives."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from opendrivevla_ros.language.model import Features
from opendrivevla_ros.training.labels import LINE_POINTS
from opendrivevla_ros.training.language_samples import AGENT_NUMBERS, LINE_NUMBERS

OCTAVES = 6  # of the waves of each coordinate: the shortest are 2.5 m long where 40 m are perceived


class TruthEncoder(nn.Module):
    """True agents and lines (see `language_samples.true_features`) to features of the width that perception gives.

    Coordinates come as waves as well (`Waves`). A lane is kept by decimetres, a hundredth of the perceived range,
    which numbers tell only after long training: of 42 drives by the truth, a network of 384,000 moments without waves
    ended 11 off the road or out of its lane and passed 26, one of 128,000 moments with them 8 and 30.
    """

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.agents = _encoder(AGENT_NUMBERS, 2, feature_size)
        self.lines = _encoder(LINE_NUMBERS, 2 * LINE_POINTS, feature_size)

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


class Waves(nn.Module):
    """Adds sines and cosines of the first numbers of each row, shares of the range, at OCTAVES rising frequencies.

    Fourier features (arXiv 2006.10739, section 3): without them a network learns what changes fast last.
    """

    frequencies: Tensor

    def __init__(self, coordinates: int) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(OCTAVES), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """[n, numbers] to [n, numbers + 2 * OCTAVES * coordinates]."""
        waves = rows[:, : self.coordinates, None] * self.frequencies
        return torch.cat([rows, waves.sin().flatten(1), waves.cos().flatten(1)], 1)


def _encoder(numbers: int, coordinates: int, feature_size: int) -> nn.Module:
    wide = 2 * feature_size
    return nn.Sequential(
        Waves(coordinates),
        nn.Linear(numbers + 2 * OCTAVES * coordinates, wide),
        nn.GELU(),
        nn.Linear(wide, wide),
        nn.GELU(),
        nn.Linear(wide, feature_size),
    )
