"""The ego's query: it reads all tokens of a frame, knowing how the ego moves and where it is to go.

UniAD plans from such a query, which looks into the bird's-eye view as well (arXiv 2212.10156). OpenDriveVLA leaves the
plan to its language model alone, which others trained on more text than a small model can read. Here the query goes to
the language model as the first of the agents' tokens, and what is to be done stands in it as where an agent goes
stands in that agent's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

EGO_NUMBERS = 19
_KINDS = 3
_HEADS = 4
_LOOKS = 2  # layers, each of which looks once more


class EgoView(NamedTuple):
    """One frame as the ego's query reads it: scene tokens [S, C], agent tokens [A, C], map tokens [M, C], and `ego`
    [EGO_NUMBERS], how the ego moves and moved, and the command (see `perception_input.ego_numbers`).

    ahead: [rows, columns, C], those cells of the bird's-eye view that the query looks into, if it does.
    """

    scene: Tensor
    agents: Tensor
    map_elements: Tensor
    ego: Tensor
    ahead: Tensor | None = None


class EgoQuery(nn.Module):
    """Reads frames of tokens of `width` by transformer layers whose first position is the ego.

    ahead: rows and columns of the bird's-eye view's cells that it then looks into; None for a query that does not.
    """

    def __init__(self, width: int, layers: int, ahead: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.kinds = nn.Parameter(torch.zeros(_KINDS, width))
        self.normalise = nn.LayerNorm(width)
        self.ego = nn.Sequential(nn.Linear(EGO_NUMBERS, width), nn.ReLU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(width, _HEADS, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.look = None if ahead is None else _Look(width, ahead)

    def forward(self, views: Sequence[EgoView]) -> Tensor:
        """The ego's token of each view: [B, C]."""
        sequences = []
        for view in views:
            kinds = zip((view.scene, view.agents, view.map_elements), self.kinds, strict=True)
            tokens = [self.normalise(some) + kind for some, kind in kinds]
            sequences.append(torch.cat([self.ego(view.ego)[None], *tokens]))
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=sequences[0].device)
        padded = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        unused = torch.arange(padded.shape[1], device=lengths.device) >= lengths[:, None]
        mask = torch.zeros(unused.shape, device=lengths.device).masked_fill(unused, float("-inf"))
        read: Tensor = self.layers(padded, src_key_padding_mask=mask.to(padded.dtype))
        egos = read[:, 0]
        if self.look is None:
            return egos
        cells = torch.stack([view.ahead for view in views if view.ahead is not None])
        looked: Tensor = self.look(egos, cells.to(egos.dtype))
        return looked


class _Look(nn.Module):
    """What an ego that knows its tokens finds in the bird's-eye view: free road where no element was accepted, and
    who is there below the score at which a track begins.
    """

    def __init__(self, width: int, ahead: tuple[int, int]) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(width)
        self.patches = nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU())
        rows, columns = (-(-side // 2) for side in ahead)
        self.positions = nn.Parameter(torch.zeros(rows * columns, width))
        layer = nn.TransformerDecoderLayer(width, _HEADS, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, _LOOKS, norm=nn.LayerNorm(width))

    def forward(self, egos: Tensor, cells: Tensor) -> Tensor:
        """Egos [B, C] and cells [B, rows, columns, C] to egos [B, C]."""
        patches = self.patches(self.normalise(cells).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        looked: Tensor = self.layers(egos[:, None], patches + self.positions)
        return looked[:, 0]
