"""Stops: on the last good way, from where the vehicle is, hard enough, and never to move again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safety.courses import BODY, LIMITS, TIMES, course, failed, standing, straight

from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.fallback import StopLimits, stop
from opendrivevla_ros.safety.plan_checks import Surroundings, check_plan
from opendrivevla_ros.safety.road_users import Movers

NOBODY = Movers()
STOP = StopLimits()

speeds = st.floats(0.0, 20.0)


def bend(speed: float, curvature: float) -> Trajectory:
    turned = curvature * speed * TIMES
    xy = np.column_stack([np.sin(turned), 1 - np.cos(turned)]) / curvature if curvature else straight(speed)
    return Trajectory.from_waypoints(TIMES, xy, speed)


@given(
    speed=speeds,
    planned=speeds,
    curvature=st.floats(-0.05, 0.05).filter(lambda value: abs(value) > 1e-4 or value == 0),
    place=st.tuples(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), st.floats(-0.05, 0.05)),
    age=st.floats(0.0, 2.0),
)
def test_a_stop_is_feasible_by_the_checks_of_a_plan(
    speed: float, planned: float, curvature: float, place: tuple[float, float, float], age: float
) -> None:
    assume(max(speed, planned) ** 2 * abs(curvature) < 2.0)
    way = Course.seen_from(bend(planned, curvature), planar_transform(*place), 0.0)
    now = way.at(np.array(age))
    back = np.linalg.inv(planar_transform(float(now[0]), float(now[1]), float(now[2])))
    seen = Course.seen_from(bend(planned, curvature), back @ planar_transform(*place), age)
    trajectory = stop(seen, speed, NOBODY, BODY, STOP)
    checks = check_plan(
        Course.seen_from(trajectory, np.eye(4), 0.0), Surroundings(speed=speed, age=0.0, body=BODY), LIMITS
    )
    assert failed(checks) == []


@given(speed=speeds)
def test_it_comes_to_a_stand_as_gently_as_it_is_told_and_stays(speed: float) -> None:
    trajectory = stop(None, speed, NOBODY, BODY, STOP)
    assert trajectory.times[-1] >= 3.0
    assert trajectory.xy[-1, 0] == pytest.approx(speed**2 / (2 * STOP.comfortable), abs=1e-6)
    assert np.abs(trajectory.xy[:, 1]).max() < 1e-9
    assert trajectory.acceleration.min() >= -STOP.comfortable - 1e-9
    after = trajectory.times >= speed / STOP.comfortable
    np.testing.assert_allclose(trajectory.xy[after], trajectory.xy[-1][None].repeat(after.sum(), 0))


def test_a_standing_vehicle_stays_where_it_is_whatever_the_plan_was() -> None:
    np.testing.assert_array_equal(stop(course(straight(9.0), 9.0), 0.0, NOBODY, BODY, STOP).xy, 0.0)


@given(distance=st.floats(8.0, 80.0), speed=st.floats(1.0, 20.0))
def test_it_stands_before_who_is_in_the_way_if_that_is_possible(distance: float, speed: float) -> None:
    gap = distance - BODY.front - 4.5 / 2
    trajectory = stop(course(straight(speed), speed), speed, standing(distance, 0.0), BODY, STOP)
    needed = speed**2 / (2 * max(gap - STOP.clearance, 1e-6))
    if needed <= STOP.hard:
        assert trajectory.xy[-1, 0] <= gap - STOP.clearance + 0.3
    else:
        assert trajectory.xy[-1, 0] == pytest.approx(speed**2 / (2 * STOP.hard), abs=1e-6)


def test_who_drives_ahead_as_fast_needs_no_hard_stop() -> None:
    ahead = replace(standing(14.0, 0.0), velocity=np.array([[10.0, 0.0]]))
    gentle, hard = (
        stop(course(straight(10.0), 10.0), 10.0, movers, BODY, STOP) for movers in (ahead, standing(14.0, 0.0))
    )
    assert gentle.acceleration.min() > hard.acceleration.min() + 1.0
    assert hard.acceleration.min() == pytest.approx(-STOP.hard, abs=0.5)


def test_who_stands_beside_a_bend_is_no_reason_to_brake_hard() -> None:
    way = Course.seen_from(bend(8.0, 0.06), np.eye(4), 0.0)
    straight_on = standing(14.0, -1.0)
    assert stop(way, 8.0, straight_on, BODY, STOP).acceleration.min() > -STOP.comfortable - 0.1
    assert stop(None, 8.0, straight_on, BODY, STOP).acceleration.min() < -STOP.comfortable - 0.5


def test_a_stop_follows_the_bend_and_goes_straight_on_behind_its_end() -> None:
    way = Course.seen_from(bend(4.0, 0.08), np.eye(4), 0.0)
    trajectory = stop(way, 8.0, NOBODY, BODY, STOP)  # twice as fast as planned: 16 m, and the way has 12
    turned = 0.08 * 12.0
    assert trajectory.yaw[-2] == pytest.approx(turned, abs=0.12)
    circle = np.hypot(trajectory.xy[:2, 0], trajectory.xy[:2, 1] - 12.5)
    np.testing.assert_allclose(circle, 12.5, atol=0.1)


def test_a_vehicle_that_rolls_back_stops_behind_itself() -> None:
    trajectory = stop(course(straight(5.0), 5.0), -2.0, NOBODY, BODY, STOP)
    assert trajectory.xy[-1, 0] == pytest.approx(-1.0)
    assert trajectory.velocity[0] < 0
