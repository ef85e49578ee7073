"""What a proposed path tells of a plan's actions."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_lattice import MotionLimits, lattice
from opendrivevla_ros.language.action_prior import DOUBT, ActionPrior

SCALES = np.outer(np.arange(1, 7), [0.1, 0.05])  # the later, the further off


@cache
def codebook() -> ActionCodebook:
    return lattice(MotionLimits(forward=12.0, backward=0.0))


def most_likely(prior: ActionPrior, count: int) -> list[int]:
    actions: list[int] = []
    for _ in range(count):
        actions.append(int(prior.log_shares(actions).argmax()))
    return actions


@settings(max_examples=40)
@given(bend=st.floats(-0.08, 0.08), speed=st.floats(2.0, 11.0), change=st.floats(-1.0, 1.0))
def test_the_likeliest_actions_follow_the_path_that_is_proposed(bend: float, speed: float, change: float):
    fastest = speed + 3.0 * max(change, 0.0)
    curvature = float(np.clip(bend, -3.0 / fastest**2, 3.0 / fastest**2))  # the vehicle turns with 4 m/s^2 at most
    times = np.arange(0.0, 3.01, 0.01)
    speeds = np.clip(speed + change * times, 0.0, 11.5)
    headings = np.cumsum(speeds * curvature * 0.01)
    steps = speeds[:, None] * np.stack([np.cos(headings), np.sin(headings)], 1) * 0.01
    path = np.cumsum(steps, axis=0)[49:300:50]
    prior = ActionPrior(codebook(), path, SCALES)
    reached = codebook().decode(most_likely(prior, 6))
    assert np.hypot(*(reached[:, :2] - path).T).max() < 0.3
    assert abs(reached[-1, 2] - headings[299]) < 0.15


@given(st.lists(st.integers(0, len(codebook()) - 1), max_size=5))
def test_it_is_a_distribution_that_rules_nothing_out_whatever_was_written(actions: list[int]):
    prior = ActionPrior(codebook(), np.outer(np.arange(1, 7), [2.0, 0.1]), SCALES)
    shares = np.exp(prior.log_shares(actions))
    assert shares.sum() == pytest.approx(1.0)
    assert shares.min() >= DOUBT / len(codebook()) * 0.999


def test_a_wide_error_leaves_more_open_than_a_narrow_one():
    path = np.outer(np.arange(1, 7), [2.0, 0.0])
    narrow, wide = (ActionPrior(codebook(), path, scale * SCALES).log_shares([]) for scale in (1.0, 10.0))
    assert narrow.max() > wide.max() + 1.0
    assert narrow.argmax() == wide.argmax()


def test_beyond_the_path_nothing_is_known():
    prior = ActionPrior(codebook(), np.outer(np.arange(1, 7), [2.0, 0.0]), SCALES)
    assert not prior.log_shares(most_likely(prior, 6)).any()


def test_who_is_to_stand_stands_without_turning():
    prior = ActionPrior(codebook(), np.zeros((6, 2)), SCALES)
    reached = codebook().decode(most_likely(prior, 6))
    assert np.abs(reached).max() < 0.05


@pytest.mark.parametrize(
    ("path", "scales", "complaint"),
    [
        (np.zeros((6, 3)), np.ones((6, 2)), r"path and errors \[K, 2\], not \(6, 3\) and \(6, 2\)"),
        (np.zeros((6, 2)), np.ones((5, 2)), r"not \(6, 2\) and \(5, 2\)"),
        (np.full((6, 2), np.nan), np.ones((6, 2)), "must be finite"),
    ],
)
def test_what_is_no_path_is_refused(path: np.ndarray, scales: np.ndarray, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        ActionPrior(codebook(), path, scales)
