"""Trajectories from waypoints."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.trajectory import Trajectory

TIMES = np.arange(1, 7) * 0.5


@given(st.floats(1.0, 30.0), st.floats(-0.1, 0.1))
def test_an_arc_has_its_speed_curvature_and_heading(speed, curvature):
    turn = speed * TIMES * curvature
    if abs(curvature) < 1e-6:
        xy = np.column_stack([speed * TIMES, np.zeros(6)])
    else:
        xy = np.column_stack([np.sin(turn), 1 - np.cos(turn)]) / curvature
    if abs(speed * 0.5 * curvature) > 0.5:  # a chord this long no longer stands for its arc
        return
    trajectory = Trajectory.from_waypoints(TIMES, xy, start_speed=speed)
    np.testing.assert_allclose(trajectory.velocity, speed, rtol=0.02)
    np.testing.assert_allclose(trajectory.curvature[1:], curvature, rtol=0.02, atol=1e-3)
    np.testing.assert_allclose(np.unwrap(trajectory.yaw), turn - speed * 0.25 * curvature, atol=1e-4)


def test_standing_still_keeps_the_heading_and_has_no_curvature():
    xy = np.array([[2.0, 0.0], [4.0, 2.0], [4.0, 2.0], [4.01, 2.0], [4.01, 2.0], [4.01, 2.0]])
    trajectory = Trajectory.from_waypoints(TIMES, xy)
    np.testing.assert_allclose(trajectory.yaw[2:], np.pi / 4)
    np.testing.assert_allclose(trajectory.curvature[2:], 0.0)


def test_backwards_is_a_negative_speed_with_the_heading_kept():
    trajectory = Trajectory.from_waypoints(TIMES[:2], [[-1.0, 0.0], [-2.0, 0.0]])
    np.testing.assert_allclose(trajectory.velocity, -2.0)
    np.testing.assert_allclose(np.cos(trajectory.yaw), 1.0)


def test_acceleration_starts_from_the_vehicles_speed():
    trajectory = Trajectory.from_waypoints([0.5, 1.0], [[5.0, 0.0], [9.0, 0.0]], start_speed=11.0)
    np.testing.assert_allclose(trajectory.acceleration, [-2.0, -4.0])


@pytest.mark.parametrize(
    ("times", "xy", "words"),
    [
        ([], np.zeros((0, 2)), "N > 0"),
        ([0.5, 1.0], [[1.0, 0.0]], "shape|need"),
        ([0.5, 0.5], [[1.0, 0.0], [2.0, 0.0]], "rise"),
        ([0.0, 0.5], [[1.0, 0.0], [2.0, 0.0]], "rise"),
        ([0.5], [[np.nan, 0.0]], "finite"),
    ],
)
def test_waypoints_that_are_none_are_refused(times, xy, words):
    with pytest.raises(ValueError, match=words):
        Trajectory.from_waypoints(times, xy)
