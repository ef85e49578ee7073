"""The grammar of plans, over tokenizers that merge differently."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.grammar import CharacterAutomaton, TokenGrammar, trajectory_grammar
from opendrivevla_ros.language.trajectory_text import format_trajectory, parse_trajectory


@pytest.fixture(scope="module")
def any_grammar(any_tokenizer: PreTrainedTokenizerFast) -> TokenGrammar:
    return trajectory_grammar(any_tokenizer, limit=150)


def accepted(grammar: TokenGrammar, tokens: list[int]) -> bool:
    state = 0
    for token in tokens:
        if token not in grammar.choices[state]:
            return False
        state = grammar.advance(state, token)
    return state == grammar.final


@given(values=st.lists(st.floats(-149.99, 149.99), min_size=12, max_size=12))
def test_every_plan_is_accepted_as_the_tokenizer_writes_it(
    any_tokenizer: PreTrainedTokenizerFast, any_grammar: TokenGrammar, values: list[float]
) -> None:
    text = format_trajectory(np.reshape(values, (6, 2)))
    assert accepted(any_grammar, any_tokenizer.encode(text, add_special_tokens=False))


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_walk_writes_a_plan_below_the_limit_in_canonical_tokens(
    any_tokenizer: PreTrainedTokenizerFast, any_grammar: TokenGrammar, seed: int
) -> None:
    generator, state, tokens = np.random.default_rng(seed), 0, []
    while state != any_grammar.final:
        token = int(generator.choice(list(any_grammar.choices[state])))
        tokens.append(token)
        state = any_grammar.advance(state, token)
    text = "".join(any_grammar.texts[token] for token in tokens)
    waypoints = parse_trajectory(text)
    assert text == format_trajectory(waypoints)
    assert np.abs(waypoints).max() < 150
    assert any_tokenizer.encode(text, add_special_tokens=False) == tokens


def test_forced_tokens_end_where_there_is_a_choice_or_nothing_more(any_grammar: TokenGrammar) -> None:
    for state in range(len(any_grammar.choices)):
        tokens, after = any_grammar.forced(state)
        assert len(any_grammar.choices[after]) != 1
        assert bool(tokens) == (len(any_grammar.choices[state]) == 1)
    assert [state for state, options in enumerate(any_grammar.choices) if not options] == [any_grammar.final]


def test_the_mask_allows_exactly_the_choices(any_grammar: TokenGrammar) -> None:
    for state, options in enumerate(any_grammar.choices):
        tokens = {any_grammar.tokens[column] for column in np.flatnonzero(any_grammar.allowed[state])}
        assert tokens == (set(options) if len(options) > 1 else set())


def test_the_small_tokenizer_is_asked_about_digits_signs_and_points_only(small_grammar: TokenGrammar) -> None:
    assert sorted(small_grammar.texts[token] for token in small_grammar.tokens) == sorted("-.0123456789")


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [
        (1, ["0", "-0"], ["1", "10"]),
        (10, ["9", "-9"], ["10", "09"]),
        (150, ["149", "15", "99"], ["150", "200", "015"]),
        (1000, ["999", "-100"], ["1000", "00"]),
    ],
)
def test_the_whole_part_stays_below_the_limit(limit: int, good: list[str], bad: list[str]) -> None:
    automaton = CharacterAutomaton(limit)
    start = automaton.walk(0, "<traj_start>[(")
    assert all(automaton.walk(start, f"{number}.25,") is not None for number in good)
    assert all(automaton.walk(start, f"{number}.25,") is None for number in bad)


@pytest.mark.parametrize(("decimals", "decided"), [(0, 0), (1, 12), (2, 24)])
def test_decimals_that_a_model_does_not_write_are_zeros_that_nobody_decides(
    small_tokenizer: PreTrainedTokenizerFast, decimals: int, decided: int
) -> None:
    grammar = trajectory_grammar(small_tokenizer, decimals=decimals)
    points = np.full((6, 2), 7.77).round(decimals)
    tokens = small_tokenizer.encode(format_trajectory(points), add_special_tokens=False)
    assert accepted(grammar, tokens)
    state, decisions = 0, 0
    for token in tokens:
        decisions += len(grammar.choices[state]) > 1
        state = grammar.advance(state, token)
    assert decisions == 24 + decided  # the first digit and the point, of twelve numbers, and decimals
    if decimals < 2:
        finer = small_tokenizer.encode(format_trajectory(points + 0.01), add_special_tokens=False)
        assert not accepted(grammar, finer)


@pytest.mark.parametrize("decimals", [-1, 3])
def test_decimals_that_the_text_does_not_have_are_refused(decimals: int) -> None:
    with pytest.raises(ValueError, match="0 to 2 decimals"):
        CharacterAutomaton(150, decimals)


@pytest.mark.parametrize("limit", [0, -5, 1001])
def test_a_limit_that_the_text_cannot_hold_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 1000"):
        CharacterAutomaton(limit)


def test_a_token_that_is_not_allowed_is_refused(small_grammar: TokenGrammar) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        small_grammar.advance(0, -1)


def test_a_tokenizer_that_lacks_digits_is_refused() -> None:
    class Letters:
        def get_vocab(self) -> dict[str, int]:
            return {letter: index for index, letter in enumerate("<>_[](),.-arjtsend")}

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [self.get_vocab()[letter] for letter in text]

    with pytest.raises(ValueError, match="cannot write a plan"):
        trajectory_grammar(Letters())


def test_the_longest_plan_is_as_long_as_the_widest_numbers_make_it(any_tokenizer: PreTrainedTokenizerFast) -> None:
    grammar = trajectory_grammar(any_tokenizer)
    random = np.random.default_rng(0)
    plans = [-random.uniform(100, 149.9, (6, 2)) for _ in range(50)]
    lengths = [len(any_tokenizer.encode(format_trajectory(plan), add_special_tokens=False)) for plan in plans]
    assert max(lengths) <= grammar.longest <= len(format_trajectory(plans[0]))
    assert trajectory_grammar(any_tokenizer, decimals=1).longest <= grammar.longest
