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
    tokenize_prompt,
    user_message,
)
from opendrivevla_ros.language.small_tokenizer import VOCABULARY_SIZE, build_small_tokenizer, load_tokenizer
from opendrivevla_ros.language.system_text import SMALL_SYSTEM_TEXT


def test_every_build_gives_the_same_tokenizer(small_tokenizer: PreTrainedTokenizerFast) -> None:
    again = build_small_tokenizer()
    assert len(again) <= VOCABULARY_SIZE
    assert again.get_vocab() == small_tokenizer.get_vocab()
    assert again.backend_tokenizer.to_str() == small_tokenizer.backend_tokenizer.to_str()


def test_words_that_are_handed_in_become_tokens_of_their_own(small_tokenizer: PreTrainedTokenizerFast) -> None:
    narration = ["The zebra gallops past the windmill.", "A windmill stands still."] * 30
    tokenizer = build_small_tokenizer(iter(narration), vocabulary_size=600)
    assert len(tokenizer) == 600
    assert tokenizer.tokenize(narration[1]) == ["A", "Ġwindmill", "Ġstands", "Ġstill", "."]
    assert len(small_tokenizer.tokenize(narration[0])) > len(tokenizer.tokenize(narration[0]))
    assert tokenizer.backend_tokenizer.to_str() == build_small_tokenizer(narration, 600).backend_tokenizer.to_str()


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
    prompt = chat_prompt(SMALL_SYSTEM_TEXT, user_message(fields))
    assert len(tokenize_prompt(prompt, small_tokenizer)) < 240


def test_a_saved_tokenizer_loads_as_it_was(small_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    small_tokenizer.save_pretrained(tmp_path)
    assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in tmp_path.iterdir()}
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == small_tokenizer.get_vocab()
    assert loaded.eos_token_id == small_tokenizer.eos_token_id
    text = chat_prompt(SMALL_SYSTEM_TEXT, "(-1.20,3.40)<SCENE>")
    assert loaded.encode(text) == small_tokenizer.encode(text)
