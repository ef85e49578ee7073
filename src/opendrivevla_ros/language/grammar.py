"""The grammar of a plan: which tokens may follow, so that a model can only write six well-formed waypoints.

`<traj_start>[(x1,y1),...,(x6,y6)]<traj_end>`, numbers `-?\\d{1,3}\\.\\d\\d` without leading zeros and below a limit;
where a model has learned fewer decimals, the rest are zeros.

First an automaton over characters, then one over the tokenizer's tokens. The latter only follows canonical
tokenisations, those the tokenizer itself makes of a text and the model learned from: a sequence of byte-pair tokens is
canonical when every two neighbours are (Vieira et al. 2025, arXiv 2506.07956), so a state is a state of the character
automaton and the token before. Where a state has one token left, nothing is to be decided: the token is forced.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.language.trajectory_text import TRAJECTORY_END, TRAJECTORY_START

_MARKER_SYMBOLS = {TRAJECTORY_START: "\ue000", TRAJECTORY_END: "\ue001"}  # private use characters


class CharacterAutomaton:
    """Deterministic automaton of all plan texts whose values stay below `limit` metres in magnitude.

    State 0 is the start, `final` the end; transitions[state] maps a character to the next state. decimals: of the two
    that are written, how many may be other than 0. `start` and `end` are written around the list of points.
    """

    def __init__(
        self, limit: int, decimals: int = 2, *, start: str = TRAJECTORY_START, end: str = TRAJECTORY_END
    ) -> None:
        if not 1 <= limit <= 1000:
            raise ValueError(f"the largest coordinate must be a whole number of metres from 1 to 1000, not {limit}")
        if not 0 <= decimals <= 2:
            raise ValueError(f"a plan has 0 to 2 decimals, not {decimals}")
        self.limit, self.decimals = limit, decimals
        self.transitions: list[dict[str, int]] = [{}]
        state = self._literal(0, start + "[(")
        for point in range(WAYPOINTS):
            state = self._literal(self._number(state), ",")
            state = self._literal(self._number(state), "),(" if point < WAYPOINTS - 1 else ")]" + end)
        self.final = state

    def _new(self) -> int:
        self.transitions.append({})
        return len(self.transitions) - 1

    def _literal(self, state: int, text: str) -> int:
        for character in text:
            following = self._new()
            self.transitions[state][character] = following
            state = following
        return state

    def _number(self, start: int) -> int:
        """Adds a number after `start`; returns the state behind its second decimal.

        Beginnings of the whole part that allow the same continuations share a state.
        """
        unsigned = self._new()
        self.transitions[start]["-"] = unsigned
        point = self._new()
        states: dict[tuple, int] = {}

        def whole(value: int) -> tuple[tuple, int]:
            following = {}
            if value > 0 and 10 * value < self.limit:
                for digit in range(min(10, self.limit - 10 * value)):
                    following[str(digit)] = whole(10 * value + digit)
            shape = tuple((digit, child[0]) for digit, child in following.items())
            if shape not in states:
                states[shape] = self._new()
                self.transitions[states[shape]] = {digit: child[1] for digit, child in following.items()}
                self.transitions[states[shape]]["."] = point
            return shape, states[shape]

        for value in range(min(10, self.limit)):
            self.transitions[start][str(value)] = self.transitions[unsigned][str(value)] = whole(value)[1]
        tenths, hundredths = self._new(), self._new()
        for place, (before, after) in enumerate(((point, tenths), (tenths, hundredths))):
            for digit in "0123456789" if place < self.decimals else "0":
                self.transitions[before][digit] = after
        return hundredths

    def walk(self, state: int, text: str) -> int | None:
        """The state after `text`, or None where the text does not fit."""
        for character in text:
            following = self.transitions[state].get(character)
            if following is None:
                return None
            state = following
        return state


@dataclass(frozen=True)
class TokenGrammar:
    """Automaton over tokens; states are numbered from `start` = 0, and `final` has no way on.

    choices[state]: allowed token -> next state, by rising token id. texts: token -> its characters.
    """

    choices: tuple[dict[int, int], ...]
    final: int
    texts: dict[int, str]

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """Every token that a decision is ever about, by rising id: the only logits that need computing."""
        return tuple(sorted({token for options in self.choices if len(options) > 1 for token in options}))

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """[states, tokens]: which of `tokens` each state allows; forced and final states allow none."""
        column = {token: index for index, token in enumerate(self.tokens)}
        table = np.zeros((len(self.choices), len(column)), dtype=bool)
        for state, options in enumerate(self.choices):
            if len(options) > 1:
                table[state, [column[token] for token in options]] = True
        return table

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest plan."""
        after = [0] * len(self.choices)
        for state in reversed(range(len(self.choices))):  # every choice leads to a state of a higher number
            after[state] = max((1 + after[following] for following in self.choices[state].values()), default=0)
        return after[0]

    def forced(self, state: int) -> tuple[list[int], int]:
        """The tokens that must follow `state`, and the state after them, where there is a choice or the end."""
        tokens = []
        while len(self.choices[state]) == 1:
            token, state = next(iter(self.choices[state].items()))
            tokens.append(token)
        return tokens, state

    def advance(self, state: int, token: int) -> int:
        """The state after `token`. Raises ValueError where the grammar does not allow it."""
        if token not in self.choices[state]:
            raise ValueError(f"token {token} is not allowed in grammar state {state}")
        return self.choices[state][token]


def trajectory_grammar(tokenizer: Any, limit: int = 150, decimals: int = 2) -> TokenGrammar:
    """The grammar of plans with values below `limit` metres, in the tokens of a byte-level BPE tokenizer.

    decimals: that a model has learned to write; those after them are 0, and cost no forward. Raises ValueError for a
    tokenizer that cannot write a plan.
    """
    vocabulary = tokenizer.get_vocab()  # byte-level tokens of plain characters are written as those characters
    # A marker that is one token is one symbol, which no other spelling reaches.
    symbols = {marker: symbol for marker, symbol in _MARKER_SYMBOLS.items() if marker in vocabulary}
    start, end = (symbols.get(marker, marker) for marker in _MARKER_SYMBOLS)
    automaton = CharacterAutomaton(limit, decimals, start=start, end=end)
    alphabet = {character for options in automaton.transitions for character in options}
    spelled = {token: symbols.get(text, text) for text, token in vocabulary.items()}
    spelled = {token: text for token, text in spelled.items() if text and alphabet.issuperset(text)}
    texts = {token: text for text, token in vocabulary.items() if token in spelled}
    canonical, moves = _CanonicalPairs(tokenizer, texts), _moves(automaton, spelled)
    choices: list[dict[int, int]] = []
    numbers: dict[tuple[int, int | None], int | None] = {}  # by state of the characters and token before
    same: dict[tuple, int] = {}  # states with the same ways on are one, so that masks are few

    def number(state: int, before: int | None) -> int | None:
        """The token automaton's state, numbered from the end; None where no canonical way leads to the end."""
        key = (state, before)
        if key not in numbers:
            ways = [
                (token, after)
                for token, following in moves[state]
                if canonical(before, token) and (after := number(following, token)) is not None
            ]
            if ways or state == automaton.final:
                numbers[key] = same.setdefault(tuple(ways), len(choices))
                if numbers[key] == len(choices):
                    choices.append(dict(ways))
            else:
                numbers[key] = None
        return numbers[key]

    first = number(0, None)
    if first is None:
        raise ValueError("this tokenizer cannot write a plan: its vocabulary lacks digits or punctuation")
    # Counted from the start instead: the end was numbered first, the start last.
    counted = tuple({token: first - after for token, after in ways.items()} for ways in reversed(choices))
    return TokenGrammar(counted, first, texts)


class _CanonicalPairs:
    """Whether the tokenizer itself would write two tokens (or a first one) next to each other."""

    def __init__(self, tokenizer: Any, texts: dict[int, str]) -> None:
        self._encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
        self._texts = texts
        self._known: dict[tuple[int | None, int], bool] = {}

    def __call__(self, before: int | None, token: int) -> bool:
        if (before, token) not in self._known:
            text, ids = self._texts[token], [token]
            if before is not None:
                text, ids = self._texts[before] + text, [before, token]
            self._known[before, token] = self._encode(text) == ids
        return self._known[before, token]


def _moves(automaton: CharacterAutomaton, texts: dict[int, str]) -> list[list[tuple[int, int]]]:
    """(token, next state) by state of the character automaton, by rising token."""
    ordered = sorted(texts.items())
    moves: list[list[tuple[int, int]]] = []
    for state in range(len(automaton.transitions)):
        ends = ((token, automaton.walk(state, text)) for token, text in ordered)
        moves.append([(token, end) for token, end in ends if end is not None])
    return moves
