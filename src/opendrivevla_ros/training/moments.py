"""Moments that are planned in without an answer: what there is to see, how the ego moves, and where it went."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from opendrivevla_ros.language.model import Features
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import PlanLabel
from opendrivevla_ros.training.language_samples import SpokenSample


class Moment(NamedTuple):
    """user: the message that asks for the plan; empty for who reads no words. ahead: as of a `SpokenSample`."""

    features: Features
    plan: PlanLabel
    user: str = ""
    ahead: Tensor | None = None


class Moments(Dataset[Moment]):
    """Those of the samples whose plan is known to its end. Raises TrainingError where there is none."""

    def __init__(self, samples: Sequence[SpokenSample]) -> None:
        self._moments = [
            Moment(sample.features, sample.plan, _planning_message(sample), sample.ahead)
            for sample in samples
            if sample.plan is not None
        ]
        if not self._moments:
            raise TrainingError(f"none of {len(samples)} samples has a known future; draw or record longer drives")

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> Moment:
        return self._moments[index]


def _planning_message(sample: SpokenSample) -> str:
    return next(task.user for task in sample.tasks if task.kind.split()[0] == "plan")
