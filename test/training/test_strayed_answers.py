"""Answers that stray: how far, and what is to be said next from wherever a writer got to."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.language.trajectory_text import format_trajectory, parse_trajectory
from opendrivevla_ros.training.strayed_answers import CLEAN, next_tokens, strayed


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_small_tokenizer(vocabulary_size=400)


PATH = np.column_stack([np.linspace(0.1, 2.0, 6) ** 2, np.linspace(4.0, 24.0, 6)])
ANSWER = format_trajectory(np.round(PATH, 1))
POINTS = st.lists(st.tuples(st.integers(-300, 300), st.integers(-300, 300)), min_size=6, max_size=6)


def text_of(tenths: list[tuple[int, int]]) -> str:
    return format_trajectory(np.array(tenths) / 10)


def wanted_text(written: str, answer: str, place: int) -> str:
    """What should follow `place` in what was written, up to the number's end, by trying every number."""
    spans = [match.span() for match in re.finditer(r"-?\d+\.\d+", written)]
    truth = re.findall(r"-?\d+\.\d+", answer)
    for (start, end), true in zip(spans, truth, strict=True):
        if place == start:
            return true
        if start < place < end:
            every = [f"{sign}{value / 10:.2f}" for value in range(1500) for sign in ("", "-")]
            same = [number for number in every if number.startswith(written[start:place])]
            nearest = min(same, key=lambda number: abs(float(number) - float(true)))
            return nearest[place - start :]
    return ""


@given(written=POINTS, answer=POINTS)
def test_a_number_that_was_begun_goes_on_to_where_it_is_least_wrong(
    tokenizer: PreTrainedTokenizerFast, written: list[tuple[int, int]], answer: list[tuple[int, int]]
):
    text, truth = text_of(written), text_of(answer)
    ids, labels = next_tokens(text, truth, tokenizer)
    assert tokenizer.decode(ids) == text
    place = 0
    for token, label in zip(ids, labels, strict=True):
        wanted = wanted_text(text, truth, place)
        if wanted and not text.startswith("-0.0", place):  # "-0.00" and "0.00" are as near
            assert tokenizer.decode([label]) == wanted[0]
        if not wanted:
            assert label == token
        place += len(tokenizer.decode([token]))


def test_what_does_not_stray_is_answered_by_itself(tokenizer: PreTrainedTokenizerFast):
    ids, labels = next_tokens(ANSWER, ANSWER, tokenizer)
    assert ids == labels == tokenizer.encode(ANSWER, add_special_tokens=False)
    caption = "I stop 12 metres behind the car."
    random = np.random.default_rng(0)
    assert {strayed(caption, random) for _ in range(20)} == {caption}


def test_answers_stray_further_with_time_and_keep_their_decimals():
    random = np.random.default_rng(0)
    texts = [strayed(ANSWER, random) for _ in range(2000)]
    assert sum(text == ANSWER for text in texts) / len(texts) == pytest.approx(CLEAN, abs=0.03)
    off = np.stack([parse_trajectory(text) for text in texts]) - parse_trajectory(ANSWER)
    spread = off.std(axis=0)
    assert (spread[1:] > spread[:-1]).all()
    assert spread[-1, 0] == pytest.approx(0.4, abs=0.1)
    assert spread[-1, 1] == pytest.approx(0.8, abs=0.15)
    assert all(re.fullmatch(r"-?\d+\.\d0", number) for text in texts for number in re.findall(r"-?\d+\.\d+", text))
    fine = format_trajectory(PATH + 0.03)
    assert any(not number.endswith("0") for number in re.findall(r"\d+\.\d+", strayed(fine, np.random.default_rng(2))))
