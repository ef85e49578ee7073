"""The language model's schooling before it has eyes: it reads the truth, encoded as features, and learns to speak.

The published models start from a language model that others trained. The small one starts here: the truth costs no
picture and no perception, so it learns digits, words and driving from many more moments than perception could show it.

Beside each turn, MOMENTS moments are only thought about: features and the ego's motion, without a word, to where the
plan is thought of (`FirstThought`). That costs an eighth of a turn, and how to drive takes more moments than how to
write.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.language.model import DrivingLanguageModel
from opendrivevla_ros.training.language_batches import Turn, TurnLosses
from opendrivevla_ros.training.language_data import SeenTurns
from opendrivevla_ros.training.learner import TrueMoment, TrueMoments
from opendrivevla_ros.training.token_reader import EGO_NUMBERS
from opendrivevla_ros.training.truth_encoder import TruthEncoder, together

MOMENTS = 8
AGENTS_AT, LINES_AFTER, ASKED_AFTER = 40, 8, 48  # places as in a prompt: before, between, and up to its end


@dataclass(frozen=True)
class Lesson:
    """A turn, and moments that are only thought about."""

    turn: Turn
    moments: Sequence[TrueMoment]


class Lessons(Dataset[Lesson]):
    """A lesson for each turn; its moments are drawn at random, always the same."""

    def __init__(self, turns: SeenTurns, moments: TrueMoments) -> None:
        self._turns, self._moments = turns, moments

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, index: int) -> Lesson:
        drawn = np.random.default_rng([index, 89]).integers(len(self._moments), size=MOMENTS)
        return Lesson(self._turns[index], [self._moments[int(number)] for number in drawn])


class TruthTraining(TurnLosses):
    """What the loop trains in the schooling stage: lessons, whose features are the truth, to their losses."""

    def __init__(self, model: DrivingLanguageModel, tokenizer: Any, *, system_text: str, end_id: int) -> None:
        super().__init__(model, tokenizer, system_text=system_text, end_id=end_id)
        width = model.language_config.hidden_size
        self.encoder = TruthEncoder(model.language_config.feature_size)
        self.ego = nn.Sequential(nn.Linear(EGO_NUMBERS, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, lessons: Sequence[Lesson]) -> dict[str, Tensor]:
        """The losses of `AnswerLosses`, and {"thinking": the error of what is thought about the moments}."""
        turns = [lesson.turn for lesson in lessons]
        seen = self.encoder([turn.features for turn in turns])
        said = self.said([replace(turn, features=features) for turn, features in zip(turns, seen, strict=True)])
        return {**said, "thinking": self._thinking([moment for lesson in lessons for moment in lesson.moments])}

    def _thinking(self, moments: Sequence[TrueMoment]) -> Tensor:
        model = self.language.model
        plans = [plan.to(model.embed_tokens.weight.device) for _, plan in moments]
        seen = self.encoder([truth for truth, _ in moments])
        agents = together(model.mm_projector_track, [features.agents for features in seen])
        lines = together(model.mm_projector_map, [features.map_elements for features in seen])
        egos = self.ego(torch.stack([plan.ego for plan in plans]))
        blocks = list(zip(agents, lines, egos.split(1), strict=True))
        places = [_places(len(some), len(others)).to(egos.device) for some, others, _ in blocks]
        pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
        states = model(
            inputs_embeds=pad([torch.cat(block) for block in blocks]),
            position_ids=pad(places),
            attention_mask=pad(
                [torch.ones_like(some) for some in places]
            ),  # else gaps in the places part the sequence
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states
        asked = torch.tensor([len(some) - 1 for some in places], device=egos.device)
        points = torch.stack([plan.path for plan in plans])
        known = torch.stack([plan.known.all() for plan in plans])
        return self.answers.thought.error(states, asked, points, known)


def _places(agents: int, lines: int) -> Tensor:
    """Positions of agents, lines and the end of the question."""
    lines_at = AGENTS_AT + agents + LINES_AFTER
    end = lines_at + lines + ASKED_AFTER
    return torch.cat([AGENTS_AT + torch.arange(agents), lines_at + torch.arange(lines), torch.tensor([end])])
