"""Prompts and answers as batches that teach the language model, by teacher forcing, what to answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.language.model import DrivingLanguageModel, Features
from opendrivevla_ros.language.prompt import chat_prompt, tokenize_prompt, with_proposal
from opendrivevla_ros.language.trajectory_text import TRAJECTORY_START, parse_trajectory
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.number_reading import KnownNumbers, number_values, numbers_in
from opendrivevla_ros.training.strayed_answers import next_tokens

IGNORED = -100  # a label that adds no loss


@dataclass(frozen=True)
class Saying:
    """What is asked and said.

    user: the user message, as `language.prompt` writes it. answer: the text to be said, without a token for its end.
    written: what stands in its place while the next token is asked for, see `strayed_answers`; None for the answer.
    before: what is to be said before it, such as a thought; its tokens and the answer's are those of two texts, as
    inference reads them.
    """

    user: str
    answer: str
    written: str | None = None
    before: str = ""


@dataclass(frozen=True)
class Turn:
    """What is said about one moment, each saying as if it alone were asked.

    features: what the placeholders of the messages stand for; None for no block. sayings: one or more.
    """

    features: Features
    sayings: tuple[Saying, ...]


@dataclass(frozen=True)
class LanguageBatch:
    """B sequences, filled up on the right to L positions, with N sayings among them.

    A turn's first saying is a whole sequence; what the others share with it at their beginning stands there once, and
    behind its end follows what of each is its own. embeddings: [B, L, hidden]. labels: int64 [B, L], the token that
    belongs at each position of an answer, and the one that ends it, IGNORED elsewhere. places: int64 [B, L], of each
    position in its own saying. sees: bool [B, 1, L, L], what each position (third) sees (fourth). Both are None where
    each sequence is one saying. asked: int64 [N, 2], sequence and position where each prompt ends. points:
    [N, 6, 2] metres, what an answer that is a trajectory says; has_points: bool [N]. read: the numbers of the prompts,
    known where they end. written: those of the answers, known wherever a part of one is to be said next.
    """

    embeddings: Tensor
    labels: Tensor
    places: Tensor | None
    sees: Tensor | None
    asked: Tensor
    points: Tensor
    has_points: Tensor
    read: KnownNumbers
    written: KnownNumbers


@dataclass(frozen=True)
class _Said:
    """A saying in tokens. ids: of its prompt. before, spoken, wanted: see `Saying`; the last two end in an end."""

    ids: list[int]
    before: list[int]
    spoken: list[int]
    wanted: list[int]


@dataclass
class _Sequence:
    """A sequence that grows. Of each position: whose it is, and up to where it sees what is not its own."""

    embeddings: list[Tensor]
    labels: list[int]
    places: list[int]
    owner: list[int]
    shared: list[int]


class LanguageBatches:
    """Makes batches exactly as inference makes prompts: the same chat layout, tokens and projected features.

    end_id: the token that ends an answer, one of the checkpoint's `eos_ids`.
    """

    def __init__(self, model: DrivingLanguageModel, tokenizer: Any, *, system_text: str, end_id: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._system_text, self._end_id = system_text, end_id

    def __call__(self, turns: Sequence[Turn]) -> LanguageBatch:
        """Gradients flow to the embeddings, the projectors, and the features that carry them.

        Raises TrainingError for an empty answer, and for a saying longer than the model's positions.
        """
        sequences = []
        asked: list[tuple[int, int]] = []
        given: list[tuple[int, int, float]] = []
        written: list[tuple[int, int, float]] = []
        for row, turn in enumerate(turns):
            sequence, ends = self._sequence(turn)
            sequences.append(sequence)
            for saying, (said, own, end) in zip(turn.sayings, ends, strict=True):
                asked.append((row, end))
                first = len(said.ids) - own  # of the prompt's tokens that stand here and not in what is shared
                given += [
                    (row, end + 1 - len(said.ids) + number.last, number.value)
                    for number in numbers_in(said.ids, self._tokenizer)
                    if number.last >= first
                ]
                begin = end + len(said.before)
                numbers = numbers_in(said.spoken[:-1], self._tokenizer)
                for number, value in zip(numbers, number_values(saying.answer), strict=True):
                    written += [(row, begin + index, value) for index in range(number.first, number.last + 1)]
        device = sequences[0].embeddings[0].device
        pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
        of = partial(torch.tensor, device=device)
        points = [said_points(saying.answer) for turn in turns for saying in turn.sayings]
        nothing = torch.zeros(WAYPOINTS, 2)
        owner, shared = (pad([of(getattr(one, name)) for one in sequences]) for name in ("owner", "shared"))
        several = any(len(turn.sayings) > 1 for turn in turns)
        return LanguageBatch(
            embeddings=pad([torch.cat(sequence.embeddings) for sequence in sequences]),
            labels=pad([of(sequence.labels) for sequence in sequences], padding_value=IGNORED),
            places=pad([of(sequence.places) for sequence in sequences]) if several else None,
            sees=seen_positions(owner, shared) if several else None,
            asked=of(asked),
            points=torch.stack([nothing if some is None else some for some in points]).to(device),
            has_points=of([some is not None for some in points]),
            read=KnownNumbers.of(given, device),
            written=KnownNumbers.of(written, device),
        )

    def _said(self, saying: Saying, features: Features) -> _Said:
        if not saying.answer:
            raise TrainingError(f"there is no answer to learn for the message {saying.user[-80:]!r}")
        user = with_proposal(saying.user, features.proposal)
        ids = tokenize_prompt(chat_prompt(self._system_text, user), self._tokenizer)
        spoken, wanted = next_tokens(saying.written or saying.answer, saying.answer, self._tokenizer)
        before = self._tokenizer.encode(saying.before, add_special_tokens=False) if saying.before else []
        return _Said(ids, before, [*spoken, self._end_id], [*wanted, self._end_id])

    def _sequence(self, turn: Turn) -> tuple[_Sequence, list[tuple[_Said, int, int]]]:
        """The sequence of a turn, and of each saying: how many tokens of its prompt are its own, where that ends."""
        model, limit = self._model, self._model.config.max_position_embeddings
        sequence = _Sequence([], [], [], [], [])
        sayings = [self._said(saying, turn.features) for saying in turn.sayings]
        first = sayings[0]
        of_features = 0  # positions that the features take beyond their placeholders
        ends = []
        for number, said in enumerate(sayings):
            same = _common(first.ids, said.ids) if number else 0
            prompt = model.embed_prompt(said.ids[same:], turn.features)
            if number == 0:
                of_features = len(prompt) - len(said.ids)
            shared = same + of_features if number else 0
            answer = [*said.before, *said.spoken]
            length = shared + len(prompt) + len(answer)
            if length > limit:
                raise TrainingError(
                    f"a prompt of {shared + len(prompt)} and an answer of {len(answer)} tokens exceed the model's"
                    f" {limit} positions; shorten the answer {turn.sayings[number].answer[:40]!r}"
                )
            ends.append((said, len(said.ids) - same, len(sequence.labels) + len(prompt) - 1))
            words = torch.tensor(answer, device=prompt.device)
            sequence.embeddings += [prompt, model.model.embed_tokens(words)]
            sequence.labels += [*[IGNORED] * len(prompt), *said.before, *said.wanted]
            sequence.places += range(shared, length)
            sequence.owner += [number] * (length - shared)
            sequence.shared += [shared] * (length - shared)
        return sequence, ends


def _common(first: list[int], other: list[int]) -> int:
    """How many tokens two prompts share at their beginning; the last of a prompt, which is answered, is its own."""
    alike = [one == another for one, another in zip(first, other, strict=False)]
    return min(alike.index(False) if False in alike else len(alike), len(other) - 1)


def seen_positions(owner: Tensor, shared: Tensor) -> Tensor:
    """Bool [B, 1, L, L], what each position (third) of packed sequences sees (fourth).

    owner: int64 [B, L], whose each position is: it sees what stands before it of the same. shared: int64 [B, L], up to
    where it sees the beginning of the sequence, whosever that is.
    """
    order = torch.arange(owner.shape[1], device=owner.device)
    own = (owner[:, :, None] == owner[:, None, :]) & (order[:, None] >= order)
    return (own | (order < shared[:, :, None]))[:, None]


def said_points(answer: str) -> Tensor | None:
    """The points [6, 2] of an answer that is a trajectory; None for any other."""
    if not answer.startswith(TRAJECTORY_START):
        return None
    return torch.from_numpy(parse_trajectory(answer)).float()
