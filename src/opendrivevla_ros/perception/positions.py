"""Position tables of square grids: learned per row and column (BEV), and sinusoidal (map head)."""

import math

import torch
from torch import Tensor, nn


class LearnedPositions(nn.Module):
    """A learned vector for each column and each row; a cell's position is both, column first."""

    def __init__(self, rows: int, columns: int, features: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(rows, features)
        self.col_embed = nn.Embedding(columns, features)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self) -> Tensor:
        """[rows * columns, 2 * features], row by row."""
        rows, columns = self.row_embed.weight, self.col_embed.weight
        shape = (rows.shape[0], columns.shape[0], -1)
        return torch.cat([columns[None].expand(shape), rows[:, None].expand(shape)], -1).flatten(0, 1)


def sine_positions(rows: int, columns: int, features: int, device: torch.device | str = "cpu") -> Tensor:
    """Sines and cosines of the cell centre's place in the grid: [2 * features, rows, columns], row part first.

    As in DETR (arXiv 2005.12872, appendix A.4): temperature 10000, centres scaled to [0, 2 pi].
    """
    step = torch.arange(features, dtype=torch.float32, device=device)
    period = 10000 ** (2 * torch.div(step, 2, rounding_mode="floor") / features)

    def encode(number: int) -> Tensor:
        place = (torch.arange(1, number + 1, dtype=torch.float32, device=device) - 0.5) / (number + 1e-6) * 2 * math.pi
        angle = place[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], -1).flatten(1)

    shape = (rows, columns, features)
    table = torch.cat([encode(rows)[:, None].expand(shape), encode(columns)[None].expand(shape)], -1)
    return table.permute(2, 0, 1)
