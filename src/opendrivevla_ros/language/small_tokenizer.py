"""The tokenizer of the `small` preset: byte-level BPE learned from prompts and narration, the same every time.

Digits and the minus sign stand alone, as in Qwen's tokenizer, so that numbers are written digit by digit.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.language.prompt import (
    CHAT_TOKENS,
    PLACEHOLDERS,
    STRUCTURE_TOKENS,
    PromptFields,
    chat_prompt,
    question_message,
    user_message,
)
from opendrivevla_ros.language.system_text import SMALL_SYSTEM_TEXT
from opendrivevla_ros.language.trajectory_text import format_trajectory

END_OF_TEXT = "<|endoftext|>"
VOCABULARY_SIZE = 896
PROMPTS = 300
_PIECES = r"\p{N}|-| ?\p{L}+| ?[^\s\p{L}\p{N}-]+|\s+"

# How the package talks about a drive: the words that instructions, questions and answers are made of.
NARRATION = (
    "I keep my lane and follow the road at a steady speed.",
    "I slow down because the car ahead is braking.",
    "I stop behind the vehicle in front, which stands still.",
    "I stop at the red traffic light and wait until it turns green.",
    "I give way to the pedestrian at the crossing.",
    "I turn left at the intersection after the oncoming traffic has passed.",
    "I turn right at the next intersection and stay close to the kerb.",
    "I change to the left lane to pass the parked truck on the right.",
    "I change back to the right lane because the road ahead is clear.",
    "I brake hard because a bicycle cuts in from the right.",
    "I speed up to the speed limit because nothing is ahead of me.",
    "I follow the bus at a safe distance of 12 metres.",
    "There are 3 cars, 1 truck and 2 pedestrians around me; the nearest is 8 metres ahead.",
    "There is no vehicle behind me, and the lane to my left is free.",
    "A motorcycle approaches from behind on the left at 14 metres per second.",
    "The road bends to the left. The barrier and the traffic cones close the right lane.",
    "The construction vehicle with its trailer stands still on the shoulder.",
    "What do you see ahead? What is the nearest object? Why do you slow down? Is it safe to turn left?",
    "How many vehicles are there? Where is the pedestrian? What will you do next? Please drive slowly.",
    "Yes, because the oncoming lane is free. No, because a car comes from the right.",
)


def build_small_tokenizer(
    narration: Iterable[str] = NARRATION, vocabulary_size: int = VOCABULARY_SIZE
) -> PreTrainedTokenizerFast:
    """Trains the tokenizer anew; the same narration gives the same one.

    narration: the words to be said and heard beside the prompt and the plan, as often as they come. Training hands in
    what the driving world says; without it the tokenizer knows NARRATION. The vocabulary is smaller than
    `vocabulary_size` where there is too little to learn from.
    """
    special = [END_OF_TEXT, *CHAT_TOKENS, *STRUCTURE_TOKENS, *PLACEHOLDERS]
    return train_tokenizer((*_prompts(), *narration), special, vocabulary_size)


def train_tokenizer(texts: Iterable[str], special: list[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `texts`, the same every time; special strings, of which END_OF_TEXT is one, cut them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_pieces_of(texts, special), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=CHAT_TOKENS[1],
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved in a folder (tokenizer.json, tokenizer_config.json) by `save_pretrained`."""
    return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)


def _pieces_of(texts: Iterable[str], special: list[str]) -> Iterator[str]:
    """The texts, cut by special strings as they will be later."""
    for text in texts:
        for token in special:
            text = text.replace(token, "\0")
        yield from filter(None, text.split("\0"))


def _prompts() -> Iterator[str]:
    """Prompts and plans with made-up numbers."""
    generator = np.random.default_rng(0)
    commands = list(Command)
    for index in range(PROMPTS):
        fields = PromptFields(
            velocity=(float(generator.normal(0, 0.3)), float(generator.uniform(0, 20))),
            yaw_rate=float(generator.normal(0, 0.2)),
            history=generator.normal(0, [1.0, 10.0], (4, 2)),
            measured_acceleration=(float(generator.normal()), float(generator.normal())),
            speed=float(generator.uniform(0, 20)),
            steering=float(generator.normal()),
            command=commands[index % len(commands)],
        )
        sentence = NARRATION[index % len(NARRATION)]
        yield chat_prompt(SMALL_SYSTEM_TEXT, user_message(fields, sentence))
        yield question_message(fields, sentence)
        yield format_trajectory(generator.normal(0, [2.0, 20.0], (6, 2)))
