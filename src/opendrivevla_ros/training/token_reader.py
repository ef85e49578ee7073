"""Small heads that read perception's tokens, which only training has.

They say from each agent's token where the agent is and where it goes, and from each map token how its line runs. So
the tokens come to hold what a language model needs to read from them, before there is one. How wrong the ego's
proposal is, is measured here too.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.ego_query import PLAN_METRES, EgoAnswer
from opendrivevla_ros.training.labels import LINE_POINTS, BoxLabels, PlanLabel

SPEED_UNIT = 5.0  # m/s
LINE_METRES = 10.0  # the unit of a line's error
STANDING_METRES = 0.01  # of a way in 0.5 s that is none, and leads ahead
ACROSS = 2.0  # times an error across the way counts what one along it does
DOUBT_WEIGHT = 0.1  # of a loss that shares no weights with the others, but the clipped norm of the gradients


class TokenReader(nn.Module):
    """Reads agents' states and lines from tokens of the network of this configuration."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self._reach = config.range_metres[3]
        self.state = nn.Linear(config.embed_dim, 6)
        self.line = nn.Linear(config.embed_dim, 2 * LINE_POINTS)

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


def proposal_losses(answer: EgoAnswer, plans: Sequence[PlanLabel], caution: float = 0.0) -> dict[str, Tensor]:
    """{"plan": the error of the proposed paths, see `plan_error`, in PLAN_METRES; "doubt": see `doubt_loss`}.

    With caution, "too_far" as well: by how much too far they go, see `too_far`, so many times.
    """
    wanted, known = torch.stack([plan.path for plan in plans]), torch.stack([plan.known for plan in plans])
    losses = {
        "plan": plan_error(answer.paths, wanted, known) / PLAN_METRES,
        "doubt": DOUBT_WEIGHT * doubt_loss(answer, wanted, known),
    }
    if caution:
        losses["too_far"] = caution * too_far(answer.paths, wanted, known) / PLAN_METRES
    return losses


def doubt_loss(answer: EgoAnswer, wanted: Tensor, known: Tensor) -> Tensor:
    """How badly the expected errors fit those that the paths have, over the known [B, 6]; 0 for none.

    Mean negative log likelihood of Laplace distributions, less log 2, of which the paths learn nothing.
    """
    off = (answer.paths - wanted).abs().detach()
    costs = (off / answer.errors + answer.errors.log()) * known[..., None]
    return costs.sum() / (2 * known.sum()).clamp(min=1)


def plan_error(found: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Mean absolute error of positions [B, 6, 2] of the lidar origin, lidar frame, over the known [B, 6]; 0 for none.

    The sooner, the more it counts, as 1 / time, and across the way that is wanted twice: a vehicle follows the first
    second and a half of a plan, then the next one comes; a lane leaves it a metre, and a gap ahead many. In a turn
    the way ends where at first its side was.
    """
    along, across = _along_and_across(found - wanted, wanted)
    return _weighted(along.abs() + ACROSS * across.abs(), known)


def too_far(found: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Mean of how far positions [B, 6, 2] lie ahead of those wanted, metres, 0 for those behind; as `plan_error`.

    Beside an absolute error it makes a median a quantile (Koenker and Bassett 1978): where it is as likely as not that
    somebody is in the way, the lower of two speeds is right. Across the way, a turn must be neither wide nor tight.
    """
    along, _ = _along_and_across(found - wanted, wanted)
    return _weighted(along.clamp(min=0.0), known)


def _along_and_across(off: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets [B, 6, 2] from the positions wanted, along the way that leads to each and to its right, [B, 6]."""
    way = wanted.diff(dim=1, prepend=torch.zeros_like(wanted[:, :1]))
    x, y = F.normalize(way + way.new_tensor([0.0, STANDING_METRES]), dim=-1).unbind(-1)
    return off[..., 0] * x + off[..., 1] * y, off[..., 0] * y - off[..., 1] * x


def _weighted(errors: Tensor, known: Tensor) -> Tensor:
    """Mean of errors [B, 6] over the known, in which along the way has one share and across it ACROSS."""
    weights = known * _sooner(errors)
    return (errors * weights).sum() / ((1 + ACROSS) * weights.sum()).clamp(min=1e-6)


def _sooner(paths: Tensor) -> Tensor:
    return 1 / (1 + torch.arange(WAYPOINTS, device=paths.device))


def future_loss(trajectories: Tensor, labels: BoxLabels) -> Tensor:
    """Mean absolute error, metres, of the future steps of trajectories [T, steps, 2] of the labels; 0 for none known.

    The published past_traj_reg_branches give them; their labels here go forward only.
    """
    steps = min(trajectories.shape[1], labels.future.shape[1])
    known = labels.future_known[:, :steps, None].to(trajectories.dtype)
    errors = F.l1_loss(trajectories[:, :steps].float(), labels.future[:, :steps], reduction="none") * known
    return errors.sum() / (2 * known.sum()).clamp(min=1)
