"""What is known of a plan's numbers before a language model writes them: a proposal, and how far off proposals are.

A small model knows within a few decimetres what it wants to write, and says it in digits, each right or wrong. So its
probability of a digit is multiplied by the prior's, as two models of language are in shallow fusion (arXiv
1503.03535): where one is unsure the other decides, and where the model is sure of another road it still takes it.
As there, the two are weighed: the model has read the proposal in its prompt, so most of what it says is said twice.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import Array

REACH = 8  # scales on either side of the proposed value, beyond which the prior knows nothing
MODEL_WEIGHT = 0.25  # of the model's log-probabilities beside the prior's
DOUBT = 1e-4  # of the prior, spread over all ways to go on: what it thinks impossible may still be said
_IN_NUMBERS = frozenset("-.0123456789")


class NumberPrior:
    """Laplace distributions of the numbers of a plan, rounded as it writes them.

    centres: [6, 2], metres. scales: [6, 2], their mean absolute errors, above 0. decimals: that are written.
    """

    def __init__(self, centres: ArrayLike, scales: ArrayLike, *, decimals: int) -> None:
        self._centres = np.asarray(centres, dtype=np.float64).ravel()
        self._scales = np.asarray(scales, dtype=np.float64).ravel()
        if self._centres.shape != self._scales.shape or not (self._scales > 0).all():
            raise ValueError(
                f"scales above 0 belong to all of {self._centres.size} numbers, not {self._scales.tolist()}"
            )
        self._decimals = decimals
        self._masses: dict[int, dict[str, float]] = {}  # by number, of those that were come to

    def log_shares(self, place: "NumberPlace", options: Sequence[str]) -> Array:
        """Log probability, up to a constant, of each text that may follow where the writing of a plan stands.

        0 for all of them where what is written has left the prior's reach. Raises ValueError for texts of several
        digits, whose shares would overlap.
        """
        if place.index not in self._masses:
            self._masses[place.index] = self._beginnings(place.index)
        masses = self._masses[place.index]
        total = masses.get(place.begun, 0.0)
        if total == 0.0:
            return np.zeros(len(options))
        parts = [option if option in _IN_NUMBERS else _number_part(option) for option in options]
        if long := [part for part in parts if len(part) > 1]:
            raise ValueError(f"this tokenizer writes {long[0]!r} at once, a proposal needs one token a digit")
        shares = np.array([masses.get(place.begun + part, 0.0) / total for part in parts])
        return np.log(shares * (1 - DOUBT) + DOUBT / len(options))

    def _beginnings(self, index: int) -> dict[str, float]:
        """The probability of every beginning of a number's text."""
        centre, scale, unit = self._centres[index], self._scales[index], 10**self._decimals
        reach = REACH * scale + 1 / unit
        values = np.arange(np.floor((centre - reach) * unit), np.ceil((centre + reach) * unit) + 1) / unit
        densities = np.exp(-np.abs(values - centre) / scale)
        masses: defaultdict[str, float] = defaultdict(float)
        for value, density in zip((values + 0.0).tolist(), (densities / densities.sum()).tolist(), strict=True):
            text = f"{value:.2f}"
            for end in range(len(text) + 1):
                masses[text[:end]] += density
        return masses


class NumberPlace:
    """Where the writing of a plan stands: in the number of that `index`, of which `begun` is written."""

    def __init__(self) -> None:
        self.index, self.begun = 0, ""

    def add(self, text: str) -> None:
        """What is written next. A comma ends every number but the last."""
        for character in text:
            if character in _IN_NUMBERS:
                self.begun += character
            else:
                self.index, self.begun = self.index + (character == ","), ""


def _number_part(option: str) -> str:
    """What of a token's text still belongs to the number: a comma or the next one's sign behind it do not."""
    end = next((place for place, character in enumerate(option) if character not in _IN_NUMBERS), len(option))
    return option[:end]
