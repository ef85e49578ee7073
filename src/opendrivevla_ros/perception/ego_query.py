"""The ego's query: it reads all tokens of a frame, knowing how the ego moves and where it is to go.

UniAD plans from such a query, which looks into the bird's-eye view as well (arXiv 2212.10156). OpenDriveVLA leaves the
plan to its language model alone, which others trained on more text than a small model can read. Here the query goes to
the language model as the first of the agents' tokens, and what is to be done stands in it as where an agent goes
stands in that agent's.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from opendrivevla_ros.core.trajectory import WAYPOINTS

EGO_NUMBERS = 19
PLAN_METRES = 10.0  # the unit in which positions of a plan are read
_KINDS = 3
_HEADS = 4
_MOTION_WIDTH = 128
_ERROR_RANGE = (0.001, 100.0)  # metres
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


class EgoAnswer(NamedTuple):
    """tokens: [B, C]. paths: [B, 6, 2], where the lidar origin should be every 0.5 s, lidar frame, metres. errors:
    [B, 6, 2], how far off it expects each of these numbers to be on average, metres.
    """

    tokens: Tensor
    paths: Tensor
    errors: Tensor


class Proposal(NamedTuple):
    """One path [6, 2] and its errors [6, 2], see `EgoAnswer`."""

    path: Tensor
    errors: Tensor


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
        self.plan = _PlanReader(width)
        self.doubt = _ErrorReader(width)

    def forward(self, views: Sequence[EgoView]) -> EgoAnswer:
        """The ego's token of each view, and the path that it proposes."""
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
        if self.look is not None:
            cells = torch.stack([view.ahead for view in views if view.ahead is not None])
            egos = self.look(egos, cells.to(egos.dtype))
        motion = torch.stack([view.ego for view in views])
        return EgoAnswer(egos, self.plan(egos, motion), self.doubt(egos, motion))


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


class _PlanReader(nn.Module):
    """Reads paths: what the motion of the ego alone leads to, and what its token makes of that.

    Read from a trained query's tokens alone, which are normalised again and again, a path was off by 0.14 m after a
    second, and one of a network that knows nothing but the motion by 0.08 (expert's undisturbed drives, 70 scenarios
    that neither had learned from).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.path = nn.Linear(width, 2 * WAYPOINTS)
        self.going_on = nn.Sequential(
            nn.Linear(EGO_NUMBERS, _MOTION_WIDTH),
            nn.ReLU(),
            nn.Linear(_MOTION_WIDTH, _MOTION_WIDTH),
            nn.ReLU(),
            nn.Linear(_MOTION_WIDTH, 2 * WAYPOINTS),
        )

    def forward(self, tokens: Tensor, motion: Tensor) -> Tensor:
        """Tokens [B, C] and numbers of the ego [B, EGO_NUMBERS] to paths [B, 6, 2], metres.

        In float32 whatever the tokens are in: a bfloat16 of 40 m is off by 0.2 m.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            path = self.path(tokens.float()) + self.going_on(motion.float())
        return PLAN_METRES * path.unflatten(1, (WAYPOINTS, 2))


class _ErrorReader(nn.Module):
    """Reads from a token and the motion how far off the path will be that is read from them.

    What it learns changes nothing of the token: a path must not become worse to be known better.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.logarithm = nn.Sequential(
            nn.Linear(width + EGO_NUMBERS, _MOTION_WIDTH), nn.ReLU(), nn.Linear(_MOTION_WIDTH, 2 * WAYPOINTS)
        )

    def forward(self, tokens: Tensor, motion: Tensor) -> Tensor:
        """Tokens [B, C] and numbers of the ego [B, EGO_NUMBERS] to errors [B, 6, 2], metres, in float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            read = self.logarithm(torch.cat([tokens.detach().float(), motion.float()], dim=1))
        errors = read.clamp(*map(math.log, _ERROR_RANGE)).exp()
        return errors.unflatten(1, (WAYPOINTS, 2))
