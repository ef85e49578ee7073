"""Prompts and answers as batches that teach the language model: teacher forcing, with a loss on the answers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.language.model import DrivingLanguageModel, Features
from opendrivevla_ros.language.prompt import chat_prompt, tokenize_prompt, with_proposal
from opendrivevla_ros.language.trajectory_text import TRAJECTORY_START, WAYPOINTS, parse_trajectory
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.number_reading import KnownNumbers, NumberReading, number_values, numbers_in
from opendrivevla_ros.training.strayed_answers import next_tokens
from opendrivevla_ros.training.token_reader import plan_error

POINT_METRES = 10.0
READ_DEPTH, THOUGHT_DEPTH, WRITTEN_DEPTH = 1 / 3, 2 / 3, 5 / 6  # of the layers: read numbers, make a plan, write it
IGNORED = -100  # a label that adds no loss


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    user: the user message, as `language.prompt` writes it. features: what its placeholders stand for; None for no
    block. answer: the text to be said, without a token for its end. written: what stands in its place while the next
    token is asked for, see `strayed_answers`; None for the answer. before: what is to be said before it, such as a
    thought; its tokens and the answer's are those of two texts, as inference reads them.
    """

    user: str
    features: Features
    answer: str
    written: str | None = None
    before: str = ""


@dataclass(frozen=True)
class LanguageBatch:
    """B sequences, filled up on the right to L positions.

    embeddings: [B, L, hidden]. labels: int64 [B, L], the token that belongs at each position of an answer, and the
    one that ends it, IGNORED elsewhere. asked: int64 [B], the last position of each prompt. points: [B, 6, 2] metres,
    what an answer that is a trajectory says; has_points: bool [B]. read: the numbers of the prompts, known where they
    end. written: those of the answers, known wherever a part of one is to be said next.
    """

    embeddings: Tensor
    labels: Tensor
    asked: Tensor
    points: Tensor
    has_points: Tensor
    read: KnownNumbers
    written: KnownNumbers


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
        prompts = [self._prompt_ids(turn) for turn in turns]
        answers = [self._answer(turn) for turn in turns]
        made = [self._sequence(*one) for one in zip(turns, prompts, answers, strict=True)]
        sequences, labels = [sequence for sequence, _ in made], [label for _, label in made]
        asked = [int((label == IGNORED).sum()) - 1 for label in labels]
        pad, device = nn.utils.rnn.pad_sequence, sequences[0].device
        points = [said_points(turn.answer) for turn in turns]
        nothing = torch.zeros(WAYPOINTS, 2)
        given: list[tuple[int, int, float]] = []
        written: list[tuple[int, int, float]] = []
        for row, (turn, ids, (said, _), end) in enumerate(zip(turns, prompts, answers, asked, strict=True)):
            start = end + 1 - len(ids)  # features stand before all numbers: places count from the prompt's end
            given += [(row, start + number.last, number.value) for number in numbers_in(ids, self._tokenizer)]
            numbers, values = numbers_in(said, self._tokenizer), number_values(turn.answer)
            begin = end + len(self._before(turn))
            for number, value in zip(numbers, values, strict=True):
                written += [(row, begin + index, value) for index in range(number.first, number.last + 1)]
        return LanguageBatch(
            embeddings=pad(sequences, batch_first=True),
            labels=pad(labels, batch_first=True, padding_value=IGNORED),
            asked=torch.tensor(asked, device=device),
            points=torch.stack([nothing if some is None else some for some in points]).to(device),
            has_points=torch.tensor([some is not None for some in points], device=device),
            read=KnownNumbers.of(given, device),
            written=KnownNumbers.of(written, device),
        )

    def _prompt_ids(self, turn: Turn) -> list[int]:
        user = with_proposal(turn.user, turn.features.proposal)
        return tokenize_prompt(chat_prompt(self._system_text, user), self._tokenizer)

    def _answer(self, turn: Turn) -> tuple[list[int], list[int]]:
        """The tokens that stand in a turn's answer, and those that belong there."""
        if not turn.answer:
            raise TrainingError(f"there is no answer to learn for the message {turn.user[-80:]!r}")
        return next_tokens(turn.written or turn.answer, turn.answer, self._tokenizer)

    def _before(self, turn: Turn) -> list[int]:
        ids: list[int] = self._tokenizer.encode(turn.before, add_special_tokens=False) if turn.before else []
        return ids

    def _sequence(
        self, turn: Turn, prompt_ids: list[int], answer: tuple[list[int], list[int]]
    ) -> tuple[Tensor, Tensor]:
        """The embeddings [l, hidden] and labels [l] of a turn."""
        model = self._model
        prompt = model.embed_prompt(prompt_ids, turn.features)
        before = self._before(turn)
        spoken, wanted = (torch.tensor([*before, *ids, self._end_id], device=prompt.device) for ids in answer)
        length, limit = len(prompt) + len(spoken), model.config.max_position_embeddings
        if length > limit:
            raise TrainingError(
                f"a prompt of {len(prompt)} and an answer of {len(spoken)} tokens exceed the model's {limit}"
                f" positions; shorten the answer {turn.answer[:40]!r}"
            )
        silent = spoken.new_full((len(prompt),), IGNORED)
        return torch.cat([prompt, model.model.embed_tokens(spoken)]), torch.cat([silent, wanted])


def said_points(answer: str) -> Tensor | None:
    """The points [6, 2] of an answer that is a trajectory; None for any other."""
    if not answer.startswith(TRAJECTORY_START):
        return None
    return torch.from_numpy(parse_trajectory(answer)).float()


def read(model: DrivingLanguageModel, batch: LanguageBatch) -> tuple[Tensor, ...]:
    """The model's states [B, L, hidden] before the first layer and after each one, the last of them normalised.

    The filling stands on the right, where causal attention hides it from every answer without a mask.
    """
    states: tuple[Tensor, ...] = model.model(
        inputs_embeds=batch.embeddings, use_cache=False, output_hidden_states=True
    ).hidden_states
    return states


def answer_loss(model: DrivingLanguageModel, batch: LanguageBatch, hidden: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens, each predicted from all that stands before it.

    Only those positions get logits: over a whole prompt, logits of 150,000 words would take most of the memory.
    """
    wanted = batch.labels[:, 1:]
    learned = wanted != IGNORED
    return F.cross_entropy(model.lm_head(hidden[:, :-1][learned]).float(), wanted[learned])


def at_depth(states: Sequence[Tensor], depth: float) -> Tensor:
    """The states of `read` after that share of the layers."""
    return states[round(depth * (len(states) - 1))]


class FirstThought(nn.Module):
    """Says a trajectory's points where its question ends; only training has it.

    Digits are learned one by one, each as right or wrong. This tells the model how far off it is, before it writes,
    and so early in the layers that those after can read it when they write.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(hidden_size)
        self.points = nn.Linear(hidden_size, 2 * WAYPOINTS)

    def forward(self, batch: LanguageBatch, states: Sequence[Tensor]) -> Tensor:
        """The error of the points, metres, see `plan_error`; 0 where no answer is a trajectory.

        In metres, and not in tens of them, it weighs more than the words: counted once, a plan was thought with 0.83 m
        of error after 460,000 moments, where a network without words had 0.56 after 384,000.
        """
        return self.error(states, batch.asked, batch.points, batch.has_points)

    def error(self, states: Sequence[Tensor], asked: Tensor, points: Tensor, known: Tensor) -> Tensor:
        """The same for the states of B sequences that end at `asked` [B]; points [B, 6, 2], known [B]."""
        hidden = at_depth(states, THOUGHT_DEPTH)
        last = hidden[torch.arange(len(hidden), device=hidden.device), asked]
        found = self.points(self.normalise(last)).float().unflatten(1, (WAYPOINTS, 2))
        return plan_error(POINT_METRES * found, points, known[:, None].expand(-1, WAYPOINTS))


class AnswerLosses(nn.Module):
    """What a batch's answers cost, with the heads that only training has."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.thought = FirstThought(hidden_size)
        self.reading = NumberReading(hidden_size)
        self.writing = NumberReading(hidden_size)

    def forward(self, model: DrivingLanguageModel, batch: LanguageBatch) -> dict[str, Tensor]:
        """{"answer": mean cross-entropy, "points": see `FirstThought`, "read", "written": see `NumberReading`}."""
        states = read(model, batch)
        return {
            "answer": answer_loss(model, batch, states[-1]),
            "points": self.thought(batch, states),
            "read": self.reading(at_depth(states, READ_DEPTH), batch.read),
            "written": self.writing(at_depth(states, WRITTEN_DEPTH), batch.written),
        }
