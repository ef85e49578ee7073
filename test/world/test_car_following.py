"""The intelligent driver model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opendrivevla_ros.world.car_following import EMERGENCY_BRAKING, JAM_GAP, TIME_GAP, follow, free_road, stop_at

DT = 0.1


@given(st.floats(1.0, 13.0), st.floats(0.0, 13.0), st.floats(1.5, 6.0))
@settings(max_examples=50, deadline=None)
def test_a_follower_never_touches_a_leader_that_brakes_to_a_stop(start: float, lead: float, braking: float) -> None:
    safe = JAM_GAP + start * TIME_GAP + max(0.0, start**2 - lead**2) / 6.0
    speed, gap = start, safe
    for _ in range(300):
        acceleration = min(float(free_road(speed, 13.0)), float(follow(speed, gap, lead)))
        assert acceleration >= -EMERGENCY_BRAKING
        slower = max(0.0, lead - braking * DT)
        faster = max(0.0, speed + acceleration * DT)
        gap += (lead + slower) / 2 * DT - (speed + faster) / 2 * DT
        speed, lead = faster, slower
        assert gap > 0.3
    assert speed < 0.3


@given(st.floats(2.0, 13.0), st.floats(25.0, 59.0))
@settings(max_examples=30, deadline=None)
def test_a_stop_line_is_reached_but_not_crossed(speed: float, gap: float) -> None:
    for _ in range(400):
        faster = max(0.0, speed + min(float(free_road(speed, 13.0)), float(stop_at(speed, gap))) * DT)
        gap -= (speed + faster) / 2 * DT
        speed = faster
    assert 0.0 < gap < 2.5


def test_on_a_free_road_the_desired_speed_is_reached_and_kept() -> None:
    speed = 0.0
    for _ in range(400):
        speed += float(free_road(speed, 10.0)) * DT
    assert speed == pytest.approx(10.0, abs=0.1)


def test_arrays_of_vehicles_are_taken_one_by_one() -> None:
    together = follow(np.array([5.0, 10.0]), np.array([20.0, 8.0]), np.array([5.0, 2.0]))
    np.testing.assert_allclose(together, [follow(5.0, 20.0, 5.0), follow(10.0, 8.0, 2.0)])


def test_a_short_gap_to_an_equally_fast_leader_is_opened_without_harsh_braking() -> None:
    assert follow(10.0, 3.0, 10.0) == pytest.approx(-3.5)
    assert follow(10.0, 6.0, 0.0) < -7.0
