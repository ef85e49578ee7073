"""Prompts and answers as batches that teach the language model: teacher forcing, with a loss on the answers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.language.model import DrivingLanguageModel, Features
from opendrivevla_ros.language.prompt import chat_prompt, tokenize_prompt
from opendrivevla_ros.training.errors import TrainingError

IGNORED = -100  # a label that adds no loss


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    user: the user message, as `language.prompt` writes it. features: what its placeholders stand for; None for no
    block. answer: the text to be said, without a token for its end.
    """

    user: str
    features: Features
    answer: str


@dataclass(frozen=True)
class LanguageBatch:
    """B sequences, filled up on the right to L positions.

    embeddings: [B, L, hidden]. labels: int64 [B, L], the token at each position of an answer and of the token that
    ends it, IGNORED elsewhere.
    """

    embeddings: Tensor
    labels: Tensor


class LanguageBatches:
    """Makes batches exactly as inference makes prompts: the same chat layout, tokens and projected features.

    end_id: the token that ends an answer, one of the checkpoint's `eos_ids`.
    """

    def __init__(self, model: DrivingLanguageModel, tokenizer: Any, *, system_text: str, end_id: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._system_text, self._end_id = system_text, end_id

    def __call__(self, turns: Sequence[Turn]) -> LanguageBatch:
        """Gradients flow to the embeddings, the projectors, and the features that carry them.

        Raises TrainingError for an empty answer, and for a turn longer than the model's positions.
        """
        made = [self._sequence(turn) for turn in turns]
        sequences, labels = [sequence for sequence, _ in made], [label for _, label in made]
        pad = nn.utils.rnn.pad_sequence
        return LanguageBatch(
            embeddings=pad(sequences, batch_first=True),
            labels=pad(labels, batch_first=True, padding_value=IGNORED),
        )

    def _sequence(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """The embeddings [l, hidden] and labels [l] of a turn."""
        if not turn.answer:
            raise TrainingError(f"there is no answer to learn for the message {turn.user[-80:]!r}")
        model = self._model
        prompt_ids = tokenize_prompt(chat_prompt(self._system_text, turn.user), self._tokenizer)
        prompt = model.embed_prompt(prompt_ids, turn.features)
        answer = self._tokenizer.encode(turn.answer, add_special_tokens=False)
        spoken = torch.tensor([*answer, self._end_id], device=prompt.device)
        length, limit = len(prompt) + len(spoken), model.config.max_position_embeddings
        if length > limit:
            raise TrainingError(
                f"a prompt of {len(prompt)} and an answer of {len(spoken)} tokens exceed the model's {limit}"
                f" positions; shorten the answer {turn.answer[:40]!r}"
            )
        silent = spoken.new_full((len(prompt),), IGNORED)
        return torch.cat([prompt, model.model.embed_tokens(spoken)]), torch.cat([silent, spoken])


def answer_loss(model: DrivingLanguageModel, batch: LanguageBatch) -> Tensor:
    """Mean cross-entropy of the answers' tokens, each predicted from all that stands before it.

    Only those positions get logits: over a whole prompt, logits of 150,000 words would take most of the memory. The
    filling stands on the right, where causal attention hides it from every answer without a mask.
    """
    hidden = model.model(inputs_embeds=batch.embeddings, use_cache=False).last_hidden_state
    wanted = batch.labels[:, 1:]
    learned = wanted != IGNORED
    return F.cross_entropy(model.lm_head(hidden[:, :-1][learned]).float(), wanted[learned])


class AnswerTraining(nn.Module):
    """What the loop trains in the language stages: a list of turns to the loss of their answers."""

    def __init__(self, model: DrivingLanguageModel, tokenizer: Any, *, system_text: str, end_id: int) -> None:
        super().__init__()
        self.language = model
        self._batches = LanguageBatches(model, tokenizer, system_text=system_text, end_id=end_id)

    def forward(self, turns: Sequence[Turn]) -> dict[str, Tensor]:
        """{"answer": mean cross-entropy}."""
        return {"answer": answer_loss(self.language, self._batches(turns))}
