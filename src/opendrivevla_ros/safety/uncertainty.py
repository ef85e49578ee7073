"""How likely a plan is good: a confidence from a model's doubt, calibrated where its errors are known.

A model's own probabilities say which of its plans are better, and not how good they are. A calibration is a rising map
from the one to the other, fitted on drives that the model has not learned from (isotonic regression, Zadrozny and
Elkan, KDD 2002), and measured on others: by its expected calibration error (Guo et al., arXiv 1706.04599, equation 3)
and by the area under the ROC curve for telling bad plans.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.plan import Doubt

GOOD_METRES = 2.0  # a plan whose point 3 s ahead is no further from where the vehicle should be is good
UNSURE_METRES = 2.0  # samples so far from the plan on average, or an expected error of as much, divide its score by e
GROUPS = 20  # of as many plans each, of which a map is made
BINS = 10  # of the expected calibration error
CALIBRATION_FILE = "calibration.json"


class CalibrationError(Exception):
    """A calibration that cannot be made or read: one sentence."""


def score(doubt: Doubt) -> float:
    """p exp(-(d + e) / UNSURE_METRES) of a doubt's token probability p, sample spread d and expected error e, [0, 1].

    Higher is surer. Of 1,120 plans of validation seeds, the area under the ROC curve was 0.63 by p, 0.63 by d, 0.70 by
    e, and 0.70 by all of them.
    """
    metres = (doubt.spread or 0.0) + (doubt.expected_error or 0.0)
    return doubt.token_probability * float(np.exp(-metres / UNSURE_METRES))


@dataclass(frozen=True)
class Map:
    """A rising, piecewise linear map from scores to probabilities, both [K] and rising."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        both = np.array([self.scores, self.probabilities])
        rising = both.ndim == 2 and both.size > 0 and (np.diff(both, axis=1) >= 0).all()
        if not rising or not ((both[1] >= 0) & (both[1] <= 1)).all():
            raise CalibrationError("a calibration needs as many probabilities as scores, rising and from 0 to 1")

    def __call__(self, value: float) -> float:
        return float(np.interp(value, self.scores, self.probabilities))

    @classmethod
    def fitted(cls, scores: Sequence[float], good: Sequence[bool]) -> "Map":
        """The map of plans [N], by score and by whether they were good. Raises CalibrationError for too few."""
        order = np.argsort(scores, kind="stable")
        values, outcomes = np.asarray(scores, np.float64)[order], np.asarray(good, np.float64)[order]
        if len(values) < 2 * GROUPS or not np.isfinite(values).all():
            raise CalibrationError(f"{len(values)} plans are too few to calibrate; give at least {2 * GROUPS}")
        groups = [group for group in np.array_split(np.arange(len(values)), GROUPS) if len(group)]
        means = rising([float(outcomes[group].mean()) for group in groups], [len(group) for group in groups])
        return cls(tuple(float(values[group].mean()) for group in groups), tuple(means))


def rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The rising values with the least weighted square error: neighbours that fall are pooled (Barlow, 1972)."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, total, length = float(value), float(weight), 1
        while pools and pools[-1][0] >= mean:
            before, mass, count = pools.pop()
            mean, total, length = (before * mass + mean * total) / (mass + total), mass + total, length + count
        pools.append((mean, total, length))
    return [mean for mean, _, length in pools for _ in range(length)]


@dataclass(frozen=True)
class Calibration:
    """Of one model's weights.

    weights_hash: theirs. with_samples: for plans beside which samples were drawn; without: for those without.
    made_from: in words.
    """

    weights_hash: str
    with_samples: Map
    without: Map
    made_from: str

    def confidence(self, doubt: Doubt) -> float:
        """The probability that the plan is good."""
        return (self.without if doubt.spread is None else self.with_samples)(score(doubt))

    def save(self, folder: Path) -> Path:
        """Writes CALIBRATION_FILE into a checkpoint folder."""
        path = folder / CALIBRATION_FILE
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path) -> "Calibration | None":
        """That of a folder; None where there is none. Raises CalibrationError for one that cannot be read."""
        path = folder / CALIBRATION_FILE
        if not path.is_file():
            return None
        try:
            content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            with_samples, without = (
                Map(tuple(content[name]["scores"]), tuple(content[name]["probabilities"]))
                for name in ("with_samples", "without")
            )
            return cls(str(content["weights_hash"]), with_samples, without, str(content["made_from"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"{path} is broken; delete it or make it anew with `odv calibrate`") from error


def expected_calibration_error(confidence: Array, good: NDArray[np.bool_]) -> float:
    """The mean over plans [N] of how far confidence and share of good plans differ in their one of BINS bins."""
    return sum(abs(mean - share) * count for mean, share, count in reliability(confidence, good)) / len(confidence)


def reliability(confidence: Array, good: NDArray[np.bool_]) -> tuple[tuple[float, float, int], ...]:
    """Of each of BINS bins that has plans: their mean confidence, the share of good ones among them, their count."""
    bins = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    return tuple(
        (float(confidence[bins == index].mean()), float(good[bins == index].mean()), int((bins == index).sum()))
        for index in np.unique(bins)
    )


def area_under_curve(confidence: Array, good: NDArray[np.bool_]) -> float:
    """The probability that a good plan has more confidence than a bad one, half for a tie; NaN without one of either.

    The area under the ROC curve of telling bad plans by their confidence (Hanley and McNeil, 1982).
    """
    good_ones, bad_ones = np.sort(confidence[good]), np.sort(confidence[~good])
    if not len(good_ones) or not len(bad_ones):
        return float("nan")
    below = np.searchsorted(bad_ones, good_ones, side="left")
    upto = np.searchsorted(bad_ones, good_ones, side="right")
    return float((below + upto).mean() / 2 / len(bad_ones))
