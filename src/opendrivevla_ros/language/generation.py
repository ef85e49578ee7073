"""Generation: plans that the grammar makes well-formed, and free text for answers, both against a deadline.

Only decisions cost a forward: tokens that the grammar forces are fed together with the decision before them, and of
the vocabulary only the tokens that a decision can be about get logits.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.language.deadline import Deadline
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.grammar import TokenGrammar
from opendrivevla_ros.language.number_prior import MODEL_WEIGHT, NumberPlace, NumberPrior
from opendrivevla_ros.language.quantisation import linear
from opendrivevla_ros.language.trajectory_text import parse_trajectory

NO_DEADLINE = Deadline()
DIGITS = "0123456789"


@dataclass(frozen=True)
class TrajectoryGeneration:
    """Plans written by the model; the first row is the greedy one, the others are sampled.

    waypoints: [S, 6, 2] as written (lidar frame, metres). tokens: ids by row. log_probabilities: by row, of each
    decision among what the grammar allowed there, before temperature. token_counts: `prompt` positions, `forced` and
    `generated` (decided) tokens of the greedy row, `forwards` of the decode. prefill_s, decode_s: seconds.
    """

    waypoints: Array
    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    log_probabilities: tuple[Array, ...]
    token_counts: dict[str, int]
    prefill_s: float
    decode_s: float

    @property
    def text(self) -> str:
        """The greedy plan's text."""
        return self.texts[0]


class TrajectoryGenerator:
    """Writes plans with a decoder under a grammar.

    median_digits: where any of the ten digits may stand and nothing else, the greedy plan takes their median in place
    of the likeliest. Of a number that the model is unsure of, the likeliest digit may be any, and is often 0; the
    median is the least far off on average.
    """

    def __init__(self, decoder: Decoder, grammar: TokenGrammar, *, median_digits: bool = False) -> None:
        device = decoder.head.device
        self.decoder, self.grammar = decoder, grammar
        self._head = decoder.head[list(grammar.tokens)].clone()  # [U, hidden]
        self._column = {token: column for column, token in enumerate(grammar.tokens)}
        barred = torch.from_numpy(~grammar.allowed).to(device)
        self._barrier = torch.zeros(barred.shape, device=device).masked_fill_(barred, float("-inf"))  # [states, U]
        self._barrier[(~grammar.allowed).all(1)] = 0.0  # rows that are done choose anything, and nobody looks
        columns = {grammar.texts[token]: column for token, column in self._column.items()}
        self._digits = [columns[digit] for digit in DIGITS if digit in columns]
        self._takes_median = [
            median_digits and {grammar.texts[token] for token in options} == set(DIGITS) for options in grammar.choices
        ]

    @torch.inference_mode()
    def generate(
        self,
        embeddings: Tensor,
        *,
        prefix: Sequence[int] = (),
        samples: int = 0,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        repetition_penalty: float = 1.0,
        prior: NumberPrior | None = None,
        deadline: Deadline = NO_DEADLINE,
        on_text: Callable[[str], None] | None = None,
    ) -> TrajectoryGeneration:
        """The greedy plan for a prompt [L, hidden], and `samples` more at `temperature`, in one batch.

        prefix: the ids of the prompt's unchanging text beginning (`prompt.text_prefix`). repetition_penalty: as in
        `transformers`, over the tokens generated so far. prior: by whose probabilities the model's are multiplied,
        those to the power of `MODEL_WEIGHT`. on_text: gets the greedy text in pieces as it comes.
        Raises DeadlineExceeded; ValueError for a prompt that leaves no room for a plan.
        """
        if temperature <= 0:
            raise ValueError(f"the sampling temperature must be above 0, not {temperature}")
        started = time.perf_counter()
        deadline.check()
        opening, _ = self.grammar.forced(0)
        prompt = torch.cat([embeddings, self.decoder.embed(opening)]) if opening else embeddings
        hidden = self.decoder.prefill(prompt, prefix=prefix, check=deadline.check)
        return self._write(
            hidden,
            samples=samples,
            temperature=temperature,
            generator=generator,
            repetition_penalty=repetition_penalty,
            prior=prior,
            deadline=deadline,
            on_text=on_text,
            prompt=len(embeddings),
            prefill_s=time.perf_counter() - started,
        )

    @torch.inference_mode()
    def go_on(
        self,
        hidden: Tensor,
        *,
        samples: int = 0,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        repetition_penalty: float = 1.0,
        prior: NumberPrior | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> TrajectoryGeneration:
        """`generate` after what the decoder holds in row 0, a prompt and a thought, in place of a prompt alone.

        hidden: [1, hidden] at its last token. What is held counts as prompt, and took no time.
        Raises DeadlineExceeded; ValueError where it leaves no room for a plan.
        """
        if temperature <= 0:
            raise ValueError(f"the sampling temperature must be above 0, not {temperature}")
        deadline.check()
        held = self.decoder.lengths[0]
        opening, _ = self.grammar.forced(0)
        if opening:
            hidden = self.decoder.step([opening], check=deadline.check)
        return self._write(
            hidden,
            samples=samples,
            temperature=temperature,
            generator=generator,
            repetition_penalty=repetition_penalty,
            prior=prior,
            deadline=deadline,
            on_text=None,
            prompt=held,
            prefill_s=0.0,
        )

    def _write(
        self,
        hidden: Tensor,
        *,
        samples: int,
        temperature: float,
        generator: torch.Generator | None,
        repetition_penalty: float,
        prior: NumberPrior | None,
        deadline: Deadline,
        on_text: Callable[[str], None] | None,
        prompt: int,
        prefill_s: float,
    ) -> TrajectoryGeneration:
        """The plans after the tokens that every plan begins with, which row 0 holds."""
        decoder, grammar, rows = self.decoder, self.grammar, 1 + samples
        began = time.perf_counter()
        opening, state = grammar.forced(0)
        if rows > 1:
            decoder.fork(rows)
            hidden = hidden.expand(rows, -1)

        tokens = [list(opening) for _ in range(rows)]
        states = [state] * rows
        places = [NumberPlace() for _ in range(rows)]
        history: list[tuple[Tensor, list[int]]] = []  # logits and decided columns, by forward
        counts = [0] * rows  # decisions by row
        penalised = _Repetition(repetition_penalty, rows, self._column, self._head.device)
        penalised.add(tokens)
        if on_text:
            on_text(self._spell(opening))
        forwards = 0
        while True:
            logits = penalised(linear(hidden, self._head).float()) + self._barrier[states]
            if prior is not None:
                logits = MODEL_WEIGHT * logits.log_softmax(-1) + torch.stack(
                    [self._told(prior, state, place) for state, place in zip(states, places, strict=True)]
                )
            decided = decide(logits, temperature, generator)
            if self._takes_median[states[0]]:
                decided[0] = self._digits[_median(logits[0, self._digits])]
            history.append((logits, decided))
            news: list[list[int]] = [[] for _ in range(rows)]
            for row, column in enumerate(decided):
                if states[row] != grammar.final:
                    token = grammar.tokens[column]
                    forced, states[row] = grammar.forced(grammar.advance(states[row], token))
                    news[row] = [token, *forced]
                    tokens[row] += news[row]
                    places[row].add(self._spell(news[row]))
                    counts[row] += 1
            penalised.add(news)
            if on_text and news[0]:
                on_text(self._spell(news[0]))
            if all(state == grammar.final for state in states):
                break
            deadline.check()
            hidden = decoder.step(news, check=deadline.check)
            forwards += 1
        texts = tuple(self._spell(row) for row in tokens)
        scores = log_probabilities(history)
        return TrajectoryGeneration(
            waypoints=np.stack([parse_trajectory(text) for text in texts]),
            texts=texts,
            tokens=tuple(tuple(row) for row in tokens),
            log_probabilities=tuple(row[:count] for row, count in zip(scores, counts, strict=True)),
            token_counts={
                "prompt": prompt,
                "forced": len(tokens[0]) - counts[0],
                "generated": counts[0],
                "forwards": forwards,
            },
            prefill_s=prefill_s,
            decode_s=time.perf_counter() - began,
        )

    def _told(self, prior: NumberPrior, state: int, place: NumberPlace) -> Tensor:
        """What a prior says of the decision at a state: [U], 0 for what is not allowed there."""
        told = torch.zeros(len(self._head), device=self._head.device)
        if state != self.grammar.final:
            options = self.grammar.choices[state]
            shares = prior.log_shares(place, [self.grammar.texts[token] for token in options])
            told[[self._column[token] for token in options]] = torch.from_numpy(shares).to(told)
        return told

    def _spell(self, tokens: Sequence[int]) -> str:
        return "".join(self.grammar.texts[token] for token in tokens)


class _Repetition:
    """The repetition penalty of CTRL (arXiv 1909.05858) over the tokens written so far, by row."""

    def __init__(self, penalty: float, rows: int, column: dict[int, int] | None, device: torch.device) -> None:
        self._penalty, self._column = penalty, column
        self._seen: list[set[int]] = [set() for _ in range(rows)]
        self._device = device

    def add(self, tokens: Sequence[Sequence[int]]) -> None:
        """Takes note of new tokens by row."""
        if self._penalty == 1.0:
            return
        for seen, new in zip(self._seen, tokens, strict=True):
            if self._column is None:
                seen.update(new)
            else:
                seen.update(self._column[token] for token in new if token in self._column)

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits [rows, columns] with those of seen tokens moved down."""
        if self._penalty == 1.0:
            return logits
        for row, seen in enumerate(self._seen):
            if seen:
                index = torch.tensor(sorted(seen), device=self._device)
                score = logits[row, index]
                logits[row, index] = torch.where(score < 0, score * self._penalty, score / self._penalty)
        return logits


def decide(logits: Tensor, temperature: float, generator: torch.Generator | None) -> list[int]:
    """Columns by row of logits [rows, U]: the largest in row 0, drawn in the others."""
    if len(logits) == 1:
        return logits.argmax(-1).tolist()
    # The largest of logits with Gumbel noise is a draw from their softmax (Maddison et al. 2014, arXiv 1411.0030).
    gumbel = -torch.empty_like(logits).exponential_(generator=generator).log_()
    gumbel[0] = 0.0
    return (logits / temperature + gumbel).argmax(-1).tolist()


def _median(logits: Tensor) -> int:
    """The first index up to which at least half of the probability lies; logits: one each."""
    return int((logits.softmax(0).cumsum(0) < 0.5).sum())


def log_probabilities(history: list[tuple[Tensor, list[int]]]) -> Array:
    """[rows, forwards] of the decided columns: one softmax for all."""
    logits = torch.stack([entry[0] for entry in history])  # [forwards, rows, U]
    columns = torch.tensor([entry[1] for entry in history], device=logits.device)
    scores = logits.log_softmax(-1).gather(-1, columns[..., None])[..., 0]
    return scores.T.cpu().double().numpy()


def generate_tokens(
    decoder: Decoder,
    embeddings: Tensor,
    *,
    prefix: Sequence[int] = (),
    positions: Tensor | None = None,
    stop_tokens: frozenset[int],
    max_tokens: int = 512,
    repetition_penalty: float = 1.0,
    deadline: Deadline = NO_DEADLINE,
) -> Iterator[int]:
    """Greedy tokens after a prompt [L, hidden], without a grammar, up to a stop token (not given) or `max_tokens`.

    positions: see `Decoder.prefill`. Also ends where the decoder's positions end. Raises DeadlineExceeded.
    """
    deadline.check()
    penalised = _Repetition(repetition_penalty, 1, None, decoder.head.device)
    with torch.inference_mode():
        hidden = decoder.prefill(embeddings, prefix=prefix, positions=positions, check=deadline.check)
    for count in range(1, max_tokens + 1):
        with torch.inference_mode():
            token = int(penalised(linear(hidden, decoder.head).float()).argmax(-1))
        if token in stop_tokens:
            return
        yield token
        if count == max_tokens or decoder.lengths[0] == decoder.max_length:
            return
        penalised.add([[token]])
        deadline.check()
        hidden = decoder.step([[token]], check=deadline.check)


def generate_text(
    decoder: Decoder,
    tokenizer: Any,
    embeddings: Tensor,
    *,
    prefix: Sequence[int] = (),
    positions: Tensor | None = None,
    stop_tokens: frozenset[int],
    max_tokens: int = 512,
    repetition_penalty: float = 1.0,
    deadline: Deadline = NO_DEADLINE,
) -> Iterator[str]:
    """`generate_tokens` as text without special tokens, in pieces that hold whole characters."""
    stream = DecodeStream(skip_special_tokens=True)
    tokens = generate_tokens(
        decoder,
        embeddings,
        prefix=prefix,
        positions=positions,
        stop_tokens=stop_tokens,
        max_tokens=max_tokens,
        repetition_penalty=repetition_penalty,
        deadline=deadline,
    )
    for token in tokens:
        piece = stream.step(tokenizer.backend_tokenizer, token)
        if piece:
            yield piece
