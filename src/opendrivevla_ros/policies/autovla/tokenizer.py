"""The tokenizer of AutoVLA's `small` preset: byte-level BPE of its prompts and of narration, with action tokens."""

from collections.abc import Iterable, Iterator

import numpy as np
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_tokens import add_action_tokens
from opendrivevla_ros.language.small_tokenizer import END_OF_TEXT, NARRATION, train_tokenizer
from opendrivevla_ros.policies.autovla.config import ALL_CAMERAS, FRONT_CAMERAS, SMALL_SYSTEM_TEXT
from opendrivevla_ros.policies.autovla.prompt import (
    CHAT_TOKENS,
    INSTRUCTIONS,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    PromptFields,
    answer_text,
    chat_prompt,
    plan_message,
    question_message,
)

WORDS = 896  # tokens beside the actions
PROMPTS = 300


def build_tokenizer(
    codebook: ActionCodebook, narration: Iterable[str] = NARRATION, words: int = WORDS
) -> PreTrainedTokenizerFast:
    """Trains the tokenizer anew; the same narration gives the same one. Actions follow on its `words`, or fewer."""
    narration = list(narration)
    special = [END_OF_TEXT, *CHAT_TOKENS, VISION_START, VISION_END, VIDEO_PAD]
    tokenizer = train_tokenizer((*_texts(narration), *narration), special, words)
    add_action_tokens(tokenizer, codebook)
    return tokenizer


def _texts(narration: list[str]) -> Iterator[str]:
    """Prompts and answers with made-up numbers."""
    generator = np.random.default_rng(0)
    commands = list(INSTRUCTIONS)
    for index in range(PROMPTS):
        history = tuple((float(x), float(y)) for x, y in generator.normal(0, [10.0, 1.0], (4, 2)))
        fields = PromptFields(
            speed=float(generator.uniform(0, 20)),
            acceleration=float(generator.normal(0, 2)),
            command=commands[index % len(commands)],
            history=history,
        )
        sentence = narration[index % len(narration)] if narration else ""
        cameras = ALL_CAMERAS if index % 2 else FRONT_CAMERAS
        yield chat_prompt(SMALL_SYSTEM_TEXT, plan_message(fields, cameras))
        if sentence:
            yield question_message(fields, cameras, sentence[:200])
        yield answer_text("")
        yield answer_text("", sentence)
