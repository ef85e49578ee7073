"""A small reader of perception's tokens, which only training has.

It says from each agent's token where the agent is and where it goes, from each map token how its line runs, and from
all tokens together where the ego should go. So the tokens come to hold what a language model needs to read from them,
before there is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.training.labels import LINE_POINTS, BoxLabels, PlanLabel

EGO_NUMBERS = 6
WAYPOINTS = 6
LAYERS, HEADS = 2, 4
PLAN_METRES = 10.0  # the unit in which the reader writes positions of the plan
SPEED_UNIT = 5.0  # m/s
LINE_METRES = 10.0  # the unit of a line's error
_KINDS = 3


@dataclass(frozen=True)
class FrameTokens:
    """One frame's scene tokens [S, C], agent tokens [A, C] and map tokens [M, C], and what the ego did next."""

    scene: Tensor
    agents: Tensor
    map: Tensor
    plan: PlanLabel


class TokenReader(nn.Module):
    """Reads agents' states, lines and the ego's plan from tokens of the network of this configuration."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self._reach = config.range_metres[3]
        self.state = nn.Linear(dim, 6)
        self.line = nn.Linear(dim, 2 * LINE_POINTS)
        self.kinds = nn.Parameter(torch.zeros(_KINDS, dim))
        self.normalise = nn.LayerNorm(dim)
        self.ego = nn.Sequential(nn.Linear(EGO_NUMBERS, dim), nn.ReLU(), nn.Linear(dim, dim))
        layer = nn.TransformerEncoderLayer(dim, HEADS, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.path = nn.Linear(dim, 2 * WAYPOINTS)

    def state_loss(self, hidden: Tensor, labels: BoxLabels) -> Tensor:
        """The error of the states of labels [T] read from the tokens [T, C] of the queries matched to them.

        A state is x and y in shares of the perceived range, sine and cosine of the heading, and the velocity in
        SPEED_UNIT, which counts where it is known. Errors are absolute, a velocity's smooth as in `box_loss`. 0 where
        there is no label.
        """
        if len(labels) == 0:
            return hidden.sum() * 0.0
        codes = labels.codes
        wanted = torch.cat([codes[:, :2] / self._reach, codes[:, 6:8], codes[:, 8:] / SPEED_UNIT], 1)
        found = self.state(hidden).float()
        known = labels.velocity_known[:, None].to(found)
        velocities = F.smooth_l1_loss(found[:, 4:], wanted[:, 4:], reduction="none") * known
        return (found[:, :4] - wanted[:, :4]).abs().mean() + velocities.mean()

    def line_loss(self, tokens: Tensor, lines: Tensor) -> Tensor:
        """The error of the points of lines [M, LINE_POINTS, 2] read from their map tokens [M, C], LINE_METRES.

        Mean absolute error against the points in the better of their two orders: a line has no first end. 0 for none.
        """
        if len(lines) == 0:
            return tokens.sum() * 0.0
        found = self.line(tokens).float().unflatten(1, (LINE_POINTS, 2))
        orders = torch.stack([lines, lines.flip(1)]) / LINE_METRES
        return (found - orders).abs().mean((2, 3)).amin(0).mean()

    def plan_loss(self, frames: Sequence[FrameTokens]) -> Tensor:
        """Mean absolute error of the ego's positions, in metres / PLAN_METRES, over frames and known points."""
        paths = self.read(frames)
        wanted = torch.stack([frame.plan.path for frame in frames]) / PLAN_METRES
        known = torch.stack([frame.plan.known for frame in frames])[..., None].to(paths)
        return ((paths - wanted).abs() * known).sum() / (2 * known.sum()).clamp(min=1)

    def read(self, frames: Sequence[FrameTokens]) -> Tensor:
        """Plans [B, 6, 2] in PLAN_METRES, lidar frame."""
        sequences = []
        for frame in frames:
            kinds = zip((frame.scene, frame.agents, frame.map), self.kinds, strict=True)
            tokens = [self.normalise(tokens) + kind for tokens, kind in kinds]
            sequences.append(torch.cat([self.ego(frame.plan.ego)[None], *tokens]))
        lengths = torch.tensor([len(sequence) for sequence in sequences], device=sequences[0].device)
        padded = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        unused = torch.arange(padded.shape[1], device=lengths.device) >= lengths[:, None]
        mask = torch.zeros(unused.shape, device=lengths.device).masked_fill(unused, float("-inf"))
        read = self.layers(padded, src_key_padding_mask=mask.to(padded.dtype))
        return self.path(read[:, 0]).float().unflatten(1, (WAYPOINTS, 2))


def future_loss(trajectories: Tensor, labels: BoxLabels) -> Tensor:
    """Mean absolute error, metres, of the future steps of trajectories [T, steps, 2] of the labels; 0 for none known.

    The published past_traj_reg_branches give them; their labels here go forward only.
    """
    steps = min(trajectories.shape[1], labels.future.shape[1])
    known = labels.future_known[:, :steps, None].to(trajectories.dtype)
    errors = F.l1_loss(trajectories[:, :steps].float(), labels.future[:, :steps], reduction="none") * known
    return errors.sum() / (2 * known.sum()).clamp(min=1)
