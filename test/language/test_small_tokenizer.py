"""The `small` preset's tokenizer."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.prompt import (
    CHAT_TOKENS,
    PLACEHOLDERS,
    STRUCTURE_TOKENS,
    PromptFields,
    chat_prompt,
    user_message,
)
from opendrivevla_ros.language.small_tokenizer import VOCABULARY_SIZE, build_small_tokenizer, load_tokenizer
from opendrivevla_ros.language.system_text import SYSTEM_TEXT


def test_every_build_gives_the_same_tokenizer(small_tokenizer: PreTrainedTokenizerFast) -> None:
    again = build_small_tokenizer()
    assert len(again) == VOCABULARY_SIZE
    assert again.get_vocab() == small_tokenizer.get_vocab()
    assert again.backend_tokenizer.to_str() == small_tokenizer.backend_tokenizer.to_str()


def test_every_special_string_is_one_token(small_tokenizer: PreTrainedTokenizerFast) -> None:
    for text in (*CHAT_TOKENS, *STRUCTURE_TOKENS, *PLACEHOLDERS):
        assert len(small_tokenizer.encode(text, add_special_tokens=False)) == 1, text
    assert small_tokenizer.eos_token == "<|im_end|>"


def test_numbers_are_written_digit_by_digit(small_tokenizer: PreTrainedTokenizerFast) -> None:
    assert small_tokenizer.tokenize("-12.34,5.6") == ["-", "1", "2", ".", "3", "4", ",", "5", ".", "6"]


@pytest.mark.parametrize("text", ["", " two  blanks ", "naïve 中文 🚗", "line\nline", "I slow down because of a car."])
def test_any_text_comes_back_whole(small_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert small_tokenizer.decode(small_tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_prompt_is_short(small_tokenizer: PreTrainedTokenizerFast, fields: PromptFields) -> None:
    prompt = chat_prompt(SYSTEM_TEXT, user_message(fields))
    assert len(small_tokenizer.encode(prompt, add_special_tokens=False)) < len(prompt) / 3


def test_a_saved_tokenizer_loads_as_it_was(small_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    small_tokenizer.save_pretrained(tmp_path)
    assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in tmp_path.iterdir()}
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == small_tokenizer.get_vocab()
    assert loaded.eos_token_id == small_tokenizer.eos_token_id
    text = chat_prompt(SYSTEM_TEXT, "(-1.20,3.40)<SCENE>")
    assert loaded.encode(text) == small_tokenizer.encode(text)
