"""Fast and slow thinking: whether a model writes down a thought before its answer, and how long that may take.

A model that was trained with both begins either answer with the same words, and says at the first word that differs
which it is (AutoVLA, arXiv 2506.13757). So one logit vector, at that word, tells with what probability it would think;
everything else that is the same in every answer is fed, not decoded. A thought is text up to its end mark; a budget of
tokens or of milliseconds, whichever is used up first, writes the mark in the model's place.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from opendrivevla_ros.core.plan import Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import ThinkingLimits
from opendrivevla_ros.language.deadline import Deadline
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.quantisation import linear

NO_DEADLINE = Deadline()


@dataclass(frozen=True)
class ThinkingTemplate:
    """The fixed texts around a thought, as the model was trained with them.

    fast: everything before the answer where there is no thought. slow: everything before the thought. end: the mark
    of a thought's end, on a line of its own. answer: what stands between the end mark and the answer.
    """

    fast: str
    slow: str
    end: str
    answer: str


class ThoughtEnd(Enum):
    """What ended a thought."""

    NONE = "none"  # there was none: fast thinking
    MODEL = "model"
    TOKENS = "tokens"  # the budget of tokens, or the room that the decoder has
    TIME = "time"


@dataclass(frozen=True)
class Thought:
    """What came before the answer.

    mode: FAST or SLOW, as it was used. slow_probability: of the model, [0, 1]. text: the thought alone, empty in FAST.
    written: everything before the answer as the model has it, fixed texts and thought. generated, forced: tokens that
    were decoded and that were fed. end: of the thought. seconds: from the deciding word on.
    """

    mode: ThinkingMode
    slow_probability: float
    text: str
    written: str
    generated: int
    forced: int
    end: ThoughtEnd
    seconds: float


class Thinker:
    """Brings a model from the end of its prompt to where its answer begins.

    stop_ids: tokens that end a text, and so a thought. barred: (first, stop) ids that no thought may hold, such as
    those of actions. clock: nanoseconds, of the budget of milliseconds.
    Raises ValueError for a template whose two beginnings a tokenizer cannot tell apart.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Any,
        template: ThinkingTemplate,
        *,
        stop_ids: frozenset[int],
        barred: tuple[int, int] = (0, 0),
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._decoder, self._tokenizer, self._template = decoder, tokenizer, template
        self._stop_ids, self._barred, self._clock = stop_ids, slice(*barred), clock
        fast, slow = self._encode(template.fast), self._encode(template.slow)
        shared = _shared(fast, slow)
        if shared in (len(fast), len(slow)):
            raise ValueError("the fast and the slow beginning must part at a token; one is the beginning of the other")
        self.opening = fast[:shared]  # up to the deciding token
        self._fast, self._slow = fast[shared:], slow[shared:]
        self._ending = "\n" + template.end + template.answer
        self._longest_ending = len(self._ending.encode())  # in tokens, however it is cut: none is less than a byte
        # positions of an answer's fixed words, which any answer needs beside its prompt
        self.least_positions = max(len(fast), len(slow) + self._longest_ending)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def slow_probability(self, hidden: Tensor) -> float:
        """Of the two ways on, from the hidden state [1, hidden] after the opening: a softmax over their two logits."""
        deciding = self._decoder.head[[self._fast[0], self._slow[0]]]
        return float(linear(hidden, deciding).float().softmax(-1)[0, 1])

    @torch.inference_mode()
    def think(
        self,
        hidden: Tensor,
        mode: ThinkingMode,
        limits: ThinkingLimits,
        *,
        room: int = 0,
        deadline: Deadline = NO_DEADLINE,
        on_thought: Callable[[Reasoning], None] | None = None,
    ) -> tuple[Tensor, Thought]:
        """The hidden state [1, hidden] at which the answer begins, and the thought before it.

        hidden: after the prompt and `opening`, which the decoder holds in row 0. room: positions that the answer
        needs. on_thought: told of the thought as it comes, each time with all of it so far. Raises DeadlineExceeded.
        """
        began_ns = self._clock()
        probability = self.slow_probability(hidden)
        thinks = mode is ThinkingMode.SLOW or (mode is ThinkingMode.AUTO and probability >= limits.slow_threshold)
        if not thinks:
            hidden = self._decoder.step([self._fast], check=deadline.check)
            seconds = (self._clock() - began_ns) / 1e9
            forced = len(self.opening) + len(self._fast)
            written = self._template.fast
            return hidden, Thought(ThinkingMode.FAST, probability, "", written, 0, forced, ThoughtEnd.NONE, seconds)
        hidden = self._decoder.step([self._slow], check=deadline.check)
        most = self._decoder.max_length - self._decoder.lengths[0] - self._longest_ending - room

        def tell(text: str) -> None:
            if on_thought is not None:
                on_thought(Reasoning(text, mode, ThinkingMode.SLOW, probability))

        stream = _ThoughtStream(self._tokenizer, self._ending, self._template.end, tell)
        end, generated = ThoughtEnd.TOKENS, 0
        pending: list[int] = []  # decoded, and not yet fed
        while generated < min(limits.max_tokens, most):
            if self._clock() - began_ns >= limits.max_milliseconds * 1_000_000:
                end = ThoughtEnd.TIME
                break
            deadline.check()
            if pending:
                hidden = self._decoder.step([pending], check=deadline.check)
            logits = linear(hidden, self._decoder.head).float()
            logits[:, self._barred] = float("-inf")
            token = int(logits.argmax(-1))
            pending = []
            if token in self._stop_ids:
                end = ThoughtEnd.MODEL
                break
            pending = [token]
            generated += 1
            if stream.add(token):
                end = ThoughtEnd.MODEL
                break
        rest = stream.close()
        closing = self._encode(rest)
        hidden = self._decoder.step([[*pending, *closing]], check=deadline.check)
        return hidden, Thought(
            mode=ThinkingMode.SLOW,
            slow_probability=probability,
            text=stream.thought,
            written=self._template.slow + stream.text + rest,
            generated=generated,
            forced=len(self.opening) + len(self._slow) + len(closing),
            end=end,
            seconds=(self._clock() - began_ns) / 1e9,
        )


class _ThoughtStream:
    """The text of a thought as its tokens come; what may be the beginning of its ending is held back from `on_text`.

    on_text: gets the text so far whenever there is more of it. The end mark is looked for in the text: byte-pair
    tokens need not begin or end where it does.
    """

    def __init__(self, tokenizer: Any, ending: str, mark: str, on_text: Callable[[str], None]) -> None:
        self._tokenizer, self._ending, self._mark, self._on_text = tokenizer.backend_tokenizer, ending, mark, on_text
        self._stream = DecodeStream(skip_special_tokens=True)
        self._told = 0
        self.text = ""

    def add(self, token: int) -> bool:
        """Takes the next token; True once the end mark is there."""
        self.text += self._stream.step(self._tokenizer, token) or ""
        self._tell(len(self.thought))
        return self._mark in self.text

    def close(self) -> str:
        """What must still be written for the answer to follow; tells the rest of the thought."""
        self._tell(len(self.thought))
        return unwritten(self.text, self._ending, self._mark)

    @property
    def thought(self) -> str:
        """The text without its end mark, the newline before that, or the beginning of the two."""
        before, mark, _ = self.text.partition(self._mark)
        return before.removesuffix("\n") if mark else self.text[: len(self.text) - _begun(self.text, self._ending)[0]]

    def _tell(self, end: int) -> None:
        if end > self._told:
            self._on_text(self.text[:end])
            self._told = end


def unwritten(text: str, ending: str, mark: str) -> str:
    """What must still be written after a thought's text for the answer to follow.

    ending: a newline, the mark that ends a thought, and what follows that. The text may hold the mark already.
    """
    _, found, after = text.partition(mark)
    if not found:
        return _begun(text, ending)[1]
    answer = ending.partition(mark)[2]
    return answer[_overlap(after, answer) :]


def _begun(text: str, ending: str) -> tuple[int, str]:
    """Characters of an ending that a text has begun, and the rest of it; the newline may have been left out."""
    whole, bare = _overlap(text, ending), _overlap(text, ending[1:])
    return (whole, ending[whole:]) if whole >= bare else (bare, ending[1 + bare :])


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = zip(first, second, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _overlap(text: str, following: str) -> int:
    """Characters of the longest end of `text` that `following` begins with."""
    lengths = range(min(len(text), len(following)), 0, -1)
    return next((length for length in lengths if text.endswith(following[:length])), 0)
