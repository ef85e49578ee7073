"""The ego's bicycle model and the steering law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.world.state import EGO_WHEELBASE, Ego
from opendrivevla_ros.world.vehicle import (
    MAX_BRAKING,
    MAX_JERK,
    MAX_STEERING,
    MAX_STEERING_RATE,
    EgoCommand,
    steering_along,
    step_ego,
)

DT = 0.1


@given(st.floats(0.0, 15.0), st.floats(-50.0, 50.0), st.floats(-3.0, 3.0))
def test_actuators_keep_their_limits_and_the_ego_never_drives_backwards(
    speed: float, acceleration: float, steering: float
) -> None:
    ego = Ego(0.0, 0.0, 0.0, speed)
    for _ in range(10):
        after = step_ego(ego, EgoCommand(acceleration, steering), DT)
        assert after.speed >= 0.0
        assert after.speed - ego.speed >= -MAX_BRAKING * DT - 1e-9
        assert after.acceleration - ego.acceleration >= -MAX_JERK * DT - 1e-9
        assert abs(after.steering) <= MAX_STEERING
        assert abs(after.steering - ego.steering) <= MAX_STEERING_RATE * DT + 1e-9
        ego = after


def test_a_held_steering_angle_drives_a_circle_of_the_bicycle_s_radius() -> None:
    angle = 0.3
    radius = EGO_WHEELBASE / np.tan(angle)
    ego = Ego(0.0, 0.0, 0.0, 5.0, steering=angle)
    for _ in range(200):
        ego = step_ego(ego, EgoCommand(0.0, angle), DT)
        assert np.hypot(ego.x, ego.y - radius) == pytest.approx(radius, rel=1e-2)
    assert ego.yaw_rate == pytest.approx(5.0 / radius)


def test_full_braking_stops_within_the_distance_of_physics_and_lights_the_brakes() -> None:
    ego = Ego(0.0, 0.0, 0.0, 10.0)
    for _ in range(30):
        ego = step_ego(ego, EgoCommand(-MAX_BRAKING, 0.0), DT)
    assert ego.speed == 0.0
    assert 100.0 / (2 * MAX_BRAKING) < ego.x < 100.0 / (2 * MAX_BRAKING) + 10.0 * MAX_BRAKING / MAX_JERK
    assert ego.brake_lights


@given(st.floats(-1.0, 1.0), st.floats(-0.2, 0.2), st.floats(1.0, 13.0))
def test_the_steering_law_comes_back_to_a_straight_line(lateral: float, yaw: float, speed: float) -> None:
    ego = Ego(0.0, lateral, yaw, speed)
    while ego.x < 60.0:
        command = steering_along(lateral=ego.y, heading_error=ego.yaw, curvature=0.0, speed=speed)
        ego = step_ego(ego, EgoCommand(0.0, command), DT)
        assert abs(ego.y) < abs(lateral) + 1.2
    assert abs(ego.y) < 0.05
    assert abs(ego.yaw) < 0.02


def test_a_command_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        step_ego(Ego(0.0, 0.0, 0.0, 1.0), EgoCommand(float("nan"), 0.0), DT)
