"""A plan as the vehicle sees it later."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.geometry import Array, invert, planar_transform
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.safety.course import Course

TIMES = np.arange(1, 7) * 0.5

places = st.tuples(st.floats(-20, 20), st.floats(-20, 20), st.floats(-3, 3))


def arc(speed: float, curvature: float) -> Array:
    """Waypoints [6, 2] of driving on a circle."""
    turned = curvature * speed * TIMES
    if abs(curvature) < 1e-9:
        return np.column_stack([speed * TIMES, np.zeros(6)])
    return np.column_stack([np.sin(turned), 1 - np.cos(turned)]) / curvature


@given(speed=st.floats(1.0, 20.0), curvature=st.floats(-0.05, 0.05), age=st.floats(0.0, 2.0))
def test_who_follows_a_plan_sees_itself_on_it(speed: float, curvature: float, age: float) -> None:
    plan = Trajectory.from_waypoints(TIMES, arc(speed, curvature), speed)
    x, y, _ = Course.seen_from(plan, np.eye(4), 0.0).at(np.array(age))
    now = planar_transform(float(x), float(y), curvature * speed * age)
    course = Course.seen_from(plan, invert(now), age)
    np.testing.assert_allclose(course.at(np.zeros(1))[0, :2], 0.0, atol=1e-9)
    np.testing.assert_allclose(course.times, np.concatenate([[0.0], TIMES]) - age)
    assert course.xy[-1, 0] == pytest.approx((invert(now) @ [*plan.xy[-1], 0, 1])[0])


@given(place=places, speed=st.floats(0.5, 20.0), curvature=st.floats(-0.05, 0.05))
def test_speeds_turns_and_lengths_do_not_depend_on_who_looks(
    place: tuple[float, float, float], speed: float, curvature: float
) -> None:
    plan = Trajectory.from_waypoints(TIMES, arc(speed, curvature), speed)
    here, there = (Course.seen_from(plan, pose, 0.3) for pose in (np.eye(4), planar_transform(*place)))
    for name in ("lengths", "speeds", "turns"):
        np.testing.assert_allclose(getattr(here, name), getattr(there, name), atol=1e-9)
    np.testing.assert_allclose(here.speeds, plan.velocity, atol=1e-9)


def test_beyond_its_ends_a_course_stays_where_it_is() -> None:
    course = Course.seen_from(Trajectory.from_waypoints(TIMES, arc(4.0, 0.0)), np.eye(4), 0.5)
    np.testing.assert_allclose(course.at(np.array([-9.0, 9.0])), [[0, 0, 0], [12, 0, 0]])


def test_a_course_backwards_has_negative_speeds() -> None:
    course = Course.seen_from(Trajectory.from_waypoints(TIMES, -arc(2.0, 0.0)), np.eye(4), 0.0)
    np.testing.assert_allclose(course.speeds, -2.0)
    np.testing.assert_allclose(course.turns, 0.0)
