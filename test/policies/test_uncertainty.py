"""Covariance and doubt of written plans."""

import numpy as np
import pytest

from opendrivevla_ros.core.plan import Doubt
from opendrivevla_ros.policies.uncertainty import doubt, token_probability, waypoint_covariance

TIMES = np.arange(1, 7) * 0.5


def test_equal_samples_and_sure_tokens_leave_the_floor_alone() -> None:
    waypoints = np.zeros((4, 6, 2))
    np.testing.assert_allclose(waypoint_covariance(waypoints, TIMES, 1.0), np.tile(0.01 * np.eye(2), (6, 1, 1)))
    assert doubt(waypoints, np.zeros(10)) == Doubt(1.0, spread=0.0)


def test_samples_that_leave_the_plan_sideways_widen_it_sideways() -> None:
    waypoints = np.zeros((3, 6, 2))
    waypoints[1, :, 0], waypoints[2, :, 0] = 2.0, -2.0
    covariance = waypoint_covariance(waypoints, TIMES, 1.0)
    np.testing.assert_allclose(covariance[:, 0, 0], 4.01)
    np.testing.assert_allclose(covariance[:, 1, 1], 0.01)
    assert doubt(waypoints, np.zeros(10)).spread == pytest.approx(2.0)


def test_known_errors_widen_each_waypoint_by_themselves_and_are_told() -> None:
    errors = np.column_stack([np.arange(6) * 0.5, np.arange(6) * 1.0])
    covariance = waypoint_covariance(np.zeros((1, 6, 2)), TIMES, 0.1, errors)
    assert covariance[3].tolist() == [[0.01 + 2 * 1.5**2, 0.0], [0.0, 0.01 + 2 * 3.0**2]]
    longer = waypoint_covariance(np.zeros((1, 10, 2)), np.arange(1, 11) * 0.5, 0.1, errors)
    np.testing.assert_allclose(longer[:6], covariance)
    np.testing.assert_allclose(longer[9, 0, 0], 0.01 + 2 * (2.5 * 5.0 / 3.0) ** 2)
    assert doubt(np.zeros((1, 6, 2)), np.zeros(10), errors).expected_error == pytest.approx(np.hypot(2.5, 5.0))


def test_unsure_tokens_widen_later_waypoints_more_and_lower_the_confidence() -> None:
    log_probabilities = np.log(np.full(10, 0.5))
    probability = token_probability(log_probabilities)
    assert probability == pytest.approx(0.5)
    covariance = waypoint_covariance(np.zeros((1, 6, 2)), TIMES, probability)
    np.testing.assert_allclose(covariance[:, 0, 0], (0.1 + 0.5 * TIMES) ** 2)
    alone = doubt(np.zeros((1, 6, 2)), log_probabilities)
    assert alone.token_probability == pytest.approx(0.5)
    assert alone.spread is None
