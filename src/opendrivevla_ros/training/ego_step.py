"""The ego's query learns by itself, from tokens that perception gave once: hundreds of moments a second and core.

The language model reads its token, and then says in words what took a tenth of the time to learn without them. Who
drives by perception and this query alone meets the mistakes of what it sees (DAgger, arXiv 1011.0686).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.language.model import Features
from opendrivevla_ros.perception.ego_query import EgoAnswer, EgoQuery, EgoView
from opendrivevla_ros.perception.network import PerceptionNetwork
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_samples import SpokenSample
from opendrivevla_ros.training.moments import Moment
from opendrivevla_ros.training.token_reader import proposal_losses

BATCH = 256
LEAST_SCALE = 0.001  # a prior must leave some doubt


class EgoTraining(nn.Module):
    """What the loop trains: moments with the tokens that perception gave to the error of their plans.

    caution: see `proposal_losses`. Raises TrainingError for a perception without an ego's query.
    """

    def __init__(self, perception: PerceptionNetwork, caution: float = 0.0) -> None:
        super().__init__()
        self.perception, self._caution = perception, caution
        query_of(perception)

    def forward(self, moments: Sequence[Moment]) -> dict[str, Tensor]:
        """See `proposal_losses`."""
        query = query_of(self.perception)
        device = query.kinds.device
        views = [_view(moment.features, moment.plan.ego, moment.ahead, device) for moment in moments]
        return proposal_losses(query(views), [moment.plan.to(device) for moment in moments], self._caution)

    def inner_matrices(self) -> list[nn.Parameter]:
        """What multiplies states in the query's layers."""
        return query_matrices(query_of(self.perception))


def query_matrices(query: EgoQuery) -> list[nn.Parameter]:
    """What multiplies states in a query's layers."""
    inner = (query.layers, *(() if query.look is None else (query.look.layers,)))
    return [parameter for layers in inner for parameter in layers.parameters() if parameter.ndim == 2]


def query_of(perception: PerceptionNetwork) -> EgoQuery:
    """The ego's query of a network. Raises TrainingError where it has none."""
    if perception.ego_query is None:
        raise TrainingError("this perception has no query of the ego; set ego_layers in its configuration")
    return perception.ego_query


@torch.inference_mode()
def with_ego_tokens(samples: Sequence[SpokenSample], query: EgoQuery) -> list[SpokenSample]:
    """The samples with the ego's token before those of the agents, and its path, as the network gives them.

    A sample whose plan is not known has no numbers of the ego either; it stays as it is.
    """
    found = list(samples)
    known = [index for index, sample in enumerate(samples) if sample.plan is not None]
    for start in range(0, len(known), BATCH):
        some = known[start : start + BATCH]
        answer = query([_view_of(samples[index]) for index in some])
        for index, ego, path in zip(some, answer.tokens, answer.paths, strict=True):
            found[index] = replace(
                found[index], features=found[index].features.led_by(ego[None].half(), path), ahead=None
            )
    return found


@torch.inference_mode()
def proposal_scales(samples: Sequence[SpokenSample], query: EgoQuery) -> tuple[tuple[float, ...], ...]:
    """By how much the errors of proposed paths are larger than the query expects them to be, see `scales`.

    Raises TrainingError where no sample's plan is known to its end.
    """
    known = [sample for sample in samples if sample.plan is not None and bool(sample.plan.known.all())]
    if not known:
        raise TrainingError(f"none of {len(samples)} samples has a known future; draw or record longer drives")
    batches = (known[start : start + BATCH] for start in range(0, len(known), BATCH))
    return scales(
        (query([_view_of(one) for one in some]), [one.plan.path for one in some if one.plan is not None])
        for some in batches
    )


def scales(answers: Iterable[tuple[EgoAnswer, Sequence[Tensor]]]) -> tuple[tuple[float, ...], ...]:
    """What makes of the errors [6][2] that a query expects, on average, those that it makes.

    answers: of batches of moments, with the paths [6, 2] that were right there, on the CPU.
    """
    off, expected = torch.zeros(WAYPOINTS, 2), torch.zeros(WAYPOINTS, 2)
    for answer, wanted in answers:
        off += (answer.paths.cpu() - torch.stack(list(wanted))).abs().sum(0)
        expected += answer.errors.cpu().sum(0)
    ratios = (off / expected).clamp(min=LEAST_SCALE)
    return tuple(tuple(round(ratio, 3) for ratio in pair) for pair in ratios.tolist())


def _view_of(sample: SpokenSample) -> EgoView:
    assert sample.plan is not None
    return _view(sample.features, sample.plan.ego, sample.ahead)


def _view(features: Features, ego: Tensor, ahead: Tensor | None, device: torch.device | str = "cpu") -> EgoView:
    blocks = (features.scene, features.agents, features.map_elements)
    width = next(block.shape[1] for block in blocks if block is not None)
    scene, agents, lines = (torch.zeros(0, width) if block is None else block.float() for block in blocks)
    cells = None if ahead is None else ahead.to(device)
    return EgoView(scene.to(device), agents.to(device), lines.to(device), ego.to(device), cells)
