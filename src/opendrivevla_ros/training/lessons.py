"""What the language stages train: turns that are spoken, and beside them moments that are only thought about.

The published models start from a language model that others trained. The small one starts from nothing, and how to
drive takes more moments than how to write. So beside each turn go moments without an answer: features and the words
behind them, to where and up to which layer the plan is thought of (`FirstThought`), which costs less than half of a
turn. In schooling the truth stands in place of features: it costs no picture and no perception.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.language.model import DrivingLanguageModel, Features
from opendrivevla_ros.language.prompt import chat_prompt, with_proposal
from opendrivevla_ros.training.answer_losses import THOUGHT_DEPTH, AnswerLosses, first_layers
from opendrivevla_ros.training.attention import attend_in_float32
from opendrivevla_ros.training.language_batches import LanguageBatches, Turn
from opendrivevla_ros.training.language_data import SeenTurns
from opendrivevla_ros.training.moments import Moment, Moments
from opendrivevla_ros.training.truth_encoder import TruthEncoder, together

BEFORE, BETWEEN = 40, 8  # places as in a prompt: before the first block, and between two
LAST_BLOCK = "<MAP>"  # behind it stand the words that differ from moment to moment
INNER = ("language.model.layers.", "language.model.mm_projector_", "encoder.")


@dataclass(frozen=True)
class Lesson:
    """A turn, and moments that are only thought about."""

    turn: Turn
    moments: Sequence[Moment]


class Lessons(Dataset[Lesson]):
    """A lesson for each turn, with `count` of the moments drawn at random, always the same."""

    def __init__(self, turns: SeenTurns, moments: Moments, count: int) -> None:
        self._turns, self._moments, self._count = turns, moments, count

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, index: int) -> Lesson:
        drawn = np.random.default_rng([index, 89]).integers(len(self._moments), size=self._count)
        return Lesson(self._turns[index], [self._moments[int(number)] for number in drawn])


class LessonTraining(nn.Module):
    """What the loop trains in the language stages: lessons to their losses.

    truth: features are the truth, which is encoded first.
    """

    def __init__(
        self, model: DrivingLanguageModel, tokenizer: Any, *, system_text: str, end_id: int, truth: bool = False
    ) -> None:
        super().__init__()
        width = model.language_config.hidden_size
        attend_in_float32(model)
        self.language = model
        self.answers = AnswerLosses(width)
        self.encoder = TruthEncoder(model.language_config.feature_size) if truth else None
        self._tokenizer, self._system_text = tokenizer, system_text
        self._batches = LanguageBatches(model, tokenizer, system_text=system_text, end_id=end_id)

    def forward(self, lessons: Sequence[Lesson]) -> dict[str, Tensor]:
        """The losses of `AnswerLosses`, and {"thinking": the error of what is thought about the moments, metres}."""
        turns = [lesson.turn for lesson in lessons]
        seen = self._seen([turn.features for turn in turns])
        turns = [replace(turn, features=features) for turn, features in zip(turns, seen, strict=True)]
        moments = [moment for lesson in lessons for moment in lesson.moments]
        return {**self.answers(self.language, self._batches(turns)), "thinking": self._thinking(moments)}

    def inner_matrices(self) -> list[nn.Parameter]:
        """What multiplies states: neither the words, nor what says a number."""
        return [
            parameter for name, parameter in self.named_parameters() if name.startswith(INNER) and parameter.ndim == 2
        ]

    def _seen(self, features: Sequence[Features]) -> Sequence[Features]:
        return features if self.encoder is None else self.encoder(features)

    def _thinking(self, moments: Sequence[Moment]) -> Tensor:
        model = self.language.model
        device = model.embed_tokens.weight.device
        seen = [features.to(device) for features in self._seen([moment.features for moment in moments])]
        words = [torch.tensor(self._behind_features(moment), device=device) for moment in moments]
        blocks: list[tuple[Tensor, ...]] = [
            together(model.mm_projector_track, [features.agents for features in seen]),
            together(model.mm_projector_map, [features.map_elements for features in seen]),
            model.embed_tokens(torch.cat(words)).split([len(some) for some in words]),
        ]
        if seen[0].scene is not None:
            blocks.insert(0, together(model.mm_projector_scene, [features.scene for features in seen]))
        sequences = list(zip(*blocks, strict=True))
        places = [_places([len(block) for block in sequence]).to(device) for sequence in sequences]
        pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
        states = first_layers(model, THOUGHT_DEPTH)(
            inputs_embeds=pad([torch.cat(sequence) for sequence in sequences]),
            position_ids=pad(places),
            attention_mask=pad([torch.ones_like(some) for some in places]),  # else gaps would part a sequence
            use_cache=False,
        ).last_hidden_state
        asked = torch.tensor([(row, len(some) - 1) for row, some in enumerate(places)], device=device)
        points = torch.stack([moment.plan.path for moment in moments]).to(device)
        return self.answers.thought.error(states, asked, points, torch.ones(len(points), device=device))

    def _behind_features(self, moment: Moment) -> list[int]:
        user = with_proposal(moment.user, moment.features.proposal)
        ids: list[int] = self._tokenizer.encode(
            chat_prompt(self._system_text, user).rpartition(LAST_BLOCK)[2], add_special_tokens=False
        )
        return ids


def _places(lengths: Sequence[int]) -> Tensor:
    """Positions of blocks of these lengths, the last of which is the words that follow on the one before."""
    gaps = [BEFORE, *[BETWEEN] * (len(lengths) - 2), 0]
    ends = accumulate(gap + length for gap, length in zip(gaps, lengths, strict=True))
    return torch.cat([torch.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)])
