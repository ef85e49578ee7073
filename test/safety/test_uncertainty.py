"""Confidence: maps that rise and fit, their figures, and files that cannot be read."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.plan import Doubt
from opendrivevla_ros.safety.uncertainty import (
    Calibration,
    CalibrationError,
    Map,
    area_under_curve,
    expected_calibration_error,
    rising,
    score,
)

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(values=VALUES, data=st.data())
def test_rising_values_rise_keep_the_mean_and_no_rising_values_are_nearer(values: list[float], data) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(values), max_size=len(values)))
    found = rising(values, weights)
    assert all(a <= b + 1e-12 for a, b in pairwise(found))
    assert np.average(found, weights=weights) == pytest.approx(np.average(values, weights=weights))
    other = sorted(data.draw(st.lists(st.floats(0, 1), min_size=len(values), max_size=len(values))))

    def error(some: list[float]) -> float:
        return float(np.average((np.array(some) - values) ** 2, weights=weights))

    assert error(found) <= error(other) + 1e-9


def test_a_map_tells_how_likely_a_plan_is_good() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, 20_000)
    good = random.uniform(0, 1, 20_000) < scores**2  # surer than it should be
    fitted = Map.fitted(scores, good)
    for value in (0.2, 0.5, 0.8):
        assert fitted(value) == pytest.approx(value**2, abs=0.03)
    assert fitted(-1.0) < 0.02
    assert fitted(2.0) > 0.9
    mapped = np.array([fitted(value) for value in scores])
    assert expected_calibration_error(mapped, good) < 0.02 < expected_calibration_error(scores, good)


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.1])
    good = np.array([True, True, False, False])
    assert area_under_curve(confidence, good) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert area_under_curve(confidence, ~good) == pytest.approx(0.5 / 4)
    assert np.isnan(area_under_curve(confidence, np.ones(4, dtype=bool)))


def test_a_plan_is_surer_with_likely_tokens_samples_that_agree_and_little_error_expected() -> None:
    assert score(Doubt(0.8)) == pytest.approx(0.8)
    assert score(Doubt(0.8, spread=2.0)) == pytest.approx(0.8 / np.e)
    assert score(Doubt(0.8, expected_error=2.0)) == pytest.approx(0.8 / np.e)
    assert score(Doubt(0.8, spread=1.0, expected_error=3.0)) == pytest.approx(0.8 / np.e**2)


def test_a_calibration_comes_back_from_its_file_and_is_told_by_samples(tmp_path: Path) -> None:
    assert Calibration.load(tmp_path) is None
    made = Calibration("ab", Map((0.0, 1.0), (0.0, 0.5)), Map((0.0, 1.0), (0.5, 1.0)), "3 scenes")
    made.save(tmp_path)
    assert Calibration.load(tmp_path) == made
    assert made.confidence(Doubt(0.5)) == pytest.approx(0.75)
    assert made.confidence(Doubt(0.5, spread=0.0)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"weights_hash": "a", "with_samples": 3, "without": 3, "made_from": ""}']
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(CalibrationError, match=r"calibration.json is broken; delete it or make it anew"):
        Calibration.load(tmp_path)


def test_too_few_plans_and_maps_that_fall_are_refused() -> None:
    with pytest.raises(CalibrationError, match="3 plans are too few to calibrate; give at least 40"):
        Map.fitted([0.1, 0.2, 0.3], [True, False, True])
    with pytest.raises(CalibrationError, match="rising and from 0 to 1"):
        Map((0.0, 1.0), (0.5, 0.4))
