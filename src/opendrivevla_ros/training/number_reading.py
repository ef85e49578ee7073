"""Numbers as digits, and a head that learns what they are worth; only training has it.

A language model that starts from nothing sees signs. Speed, history and steering stand in its prompt as digits, and
its plan is digits too; a wrong digit says little about which others meant what. To be told each number's value where
its digits end, and to know the value of a number while it is being written, says it at once. (Regression for number
tokens beside cross-entropy: arXiv 2411.02083.)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NUMBER_UNIT = 10.0
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Number:
    """A number among token ids: the indices of its first and its last token, and its value."""

    first: int
    last: int
    value: float


def numbers_in(ids: Sequence[int], tokenizer: Any) -> list[Number]:
    """The numbers among token ids, in order. Ids below 0, which stand for features, hold none."""
    pieces = [tokenizer.convert_ids_to_tokens(token) if token >= 0 else "" for token in ids]
    owner = [index for index, piece in enumerate(pieces) for _ in piece]
    found = _NUMBER.finditer("".join(pieces))
    return [Number(owner[number.start()], owner[number.end() - 1], float(number[0])) for number in found]


def number_values(text: str) -> list[float]:
    """The values of the numbers in a text, in order."""
    return [float(number) for number in _NUMBER.findall(text)]


@dataclass(frozen=True)
class KnownNumbers:
    """Where in a batch which value is known: places int64 [N, 2] (sequence, position), values [N]."""

    places: Tensor
    values: Tensor

    @classmethod
    def of(cls, known: Sequence[tuple[int, int, float]], device: torch.device) -> "KnownNumbers":
        """Of (sequence, position, value)."""
        places = torch.tensor([place for *place, _ in known], dtype=torch.long, device=device)
        return cls(places.view(-1, 2), torch.tensor([value for *_, value in known], device=device))


class NumberReading(nn.Module):
    """Reads the values of numbers from the states where they are known."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(hidden_size)
        self.value = nn.Linear(hidden_size, 1)

    def forward(self, states: Tensor, known: KnownNumbers) -> Tensor:
        """Mean absolute error, in NUMBER_UNIT, of the values read from states [B, L, hidden]; 0 for none."""
        sequences, positions = known.places.unbind(1)
        found = self.value(self.normalise(states[sequences, positions])).float()[:, 0]
        return (found - known.values / NUMBER_UNIT).abs().sum() / max(len(found), 1)
