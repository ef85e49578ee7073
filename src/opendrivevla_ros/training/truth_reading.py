"""The language model's schooling before it has eyes: it reads the truth, encoded as features, and learns to speak.

The published models start from a language model that others trained. The small one starts here: the truth costs no
picture and no perception, so it learns digits, words and driving from many more moments than perception could show it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from opendrivevla_ros.language.model import DrivingLanguageModel, Features
from opendrivevla_ros.training.language_batches import AnswerTraining, Turn
from opendrivevla_ros.training.language_samples import AGENT_NUMBERS, LINE_NUMBERS


class TruthEncoder(nn.Module):
    """True agents and lines (see `language_samples.true_features`) to features of the width that perception gives."""

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.agents = _encoder(AGENT_NUMBERS, feature_size)
        self.lines = _encoder(LINE_NUMBERS, feature_size)

    def forward(self, truth: Features) -> Features:
        """[A, AGENT_NUMBERS] and [M, LINE_NUMBERS] to [A, C] and [M, C]."""
        assert truth.agents is not None
        assert truth.map_elements is not None
        return Features(None, self.agents(truth.agents.float()), self.lines(truth.map_elements.float()))


class TruthTraining(AnswerTraining):
    """What the loop trains in the schooling stage: a list of turns whose features are the truth, to their loss."""

    def __init__(self, model: DrivingLanguageModel, tokenizer: Any, *, system_text: str, end_id: int) -> None:
        super().__init__(model, tokenizer, system_text=system_text, end_id=end_id)
        self.encoder = TruthEncoder(model.language_config.feature_size)

    def forward(self, turns: Sequence[Turn]) -> dict[str, Tensor]:
        """As `AnswerTraining.forward`."""
        return super().forward([replace(turn, features=self.encoder(turn.features)) for turn in turns])


def _encoder(numbers: int, feature_size: int) -> nn.Module:
    wide = 2 * feature_size
    return nn.Sequential(
        nn.Linear(numbers, wide), nn.GELU(), nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, feature_size)
    )
