"""Numbers as tokens: each is found with its value, from its first token to its last."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.training.number_reading import NUMBER_UNIT, KnownNumbers, NumberReading, numbers_in

TOKENIZER: PreTrainedTokenizerFast = build_small_tokenizer()
HUNDREDTHS = st.integers(min_value=-9999, max_value=9999).map(lambda hundredths: hundredths / 100)


@given(st.lists(HUNDREDTHS, max_size=8))
def test_every_number_is_found_from_its_first_token_to_its_last(values: list[float]):
    text = "Ego states: " + " ".join(f"- Speed (vx): ({value:.2f})" for value in values)
    ids = [-201, *TOKENIZER.encode(text, add_special_tokens=False)]
    found = numbers_in(ids, TOKENIZER)
    assert [number.value for number in found] == values
    for number in found:
        assert TOKENIZER.decode(ids[number.first : number.last + 1]) == f"{number.value:.2f}"


def test_words_and_dashes_are_no_numbers():
    ids = TOKENIZER.encode("Steering - the car. (a,b) -", add_special_tokens=False)
    assert numbers_in(ids, TOKENIZER) == []


def test_the_loss_is_the_mean_error_in_its_unit():
    reading = NumberReading(4)
    torch.nn.init.zeros_(reading.value.weight)
    torch.nn.init.constant_(reading.value.bias, 0.5)
    known = [(0, 2, 0.5 * NUMBER_UNIT), (1, 0, 0.9 * NUMBER_UNIT)]
    states = torch.randn(2, 3, 4)
    assert reading(states, KnownNumbers.of(known, states.device)).item() == pytest.approx(0.2)
    assert reading(states, KnownNumbers.of([], states.device)).item() == 0.0
