"""Driving a plan, its comfort, and the driver score: properties and cases whose outcome is plain."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.evaluation.comfort import comfort
from opendrivevla_ros.evaluation.driver_score import Scene, driver_score
from opendrivevla_ros.evaluation.plan_tracker import STEP_S, track

TIMES = np.arange(1, 9) * 0.5  # 4 s
INSTANTS = 41
CAR = (4.5, 1.9)


def arc(speed: float, acceleration: float = 0.0, curvature: float = 0.0) -> Trajectory:
    """A plan along an arc, to standstill where it brakes so long."""
    times = np.minimum(TIMES, speed / -acceleration) if acceleration < 0 else TIMES
    way = speed * times + acceleration * times**2 / 2
    bend = curvature or 1e-9
    xy = np.column_stack([np.sin(bend * way), 1 - np.cos(bend * way)]) / bend
    return Trajectory.from_waypoints(TIMES, xy, speed)


def others(*cars: tuple[float, float, float]) -> Array:
    """[A, T, 5] cars by x, y and speed along x."""
    times = STEP_S * np.arange(INSTANTS)
    rows = [np.column_stack([x + v * times, np.full(INSTANTS, y), np.zeros(INSTANTS)]) for x, y, v in cars]
    size = np.broadcast_to(CAR, (INSTANTS, 2))
    return np.stack([np.hstack([row, size]) for row in rows]) if rows else np.zeros((0, INSTANTS, 5))


def scene(*cars: tuple[float, float, float], speed: float = 8.0, half_width: float = 4.0) -> Scene:
    """A straight road to the front."""
    return Scene(
        others=others(*cars),
        present=np.ones((len(cars), INSTANTS), dtype=bool),
        is_object=np.zeros(len(cars), dtype=bool),
        on_road=lambda places: np.abs(places[:, 1]) < half_width,
        route=np.array([[-10.0, 0.0], [100.0, 0.0]]),
        reference_progress=32.0,
        speed=speed,
    )


@given(speed=st.floats(1.0, 15.0), acceleration=st.floats(-3.0, 2.0), curvature=st.floats(-0.1, 0.1))
def test_plans_that_people_drive_are_driven_where_they_lead(
    speed: float, acceleration: float, curvature: float
) -> None:
    curvature = float(np.clip(curvature, -2.5 / max(speed, 5) ** 2, 2.5 / max(speed, 5) ** 2))
    plan = arc(speed, acceleration, curvature)
    motion = track(plan, speed, steering=float(np.arctan(2.588 * curvature)), acceleration=acceleration)
    reached = motion.xy[np.round(plan.times / STEP_S).astype(int)]
    assert np.hypot(*(reached - plan.xy).T).max() < max(0.08 * float(np.hypot(*plan.xy[-1])), 0.7)
    assert (motion.speed >= 0).all()
    assert len(motion.times) == INSTANTS


def test_a_plan_to_stand_is_stood_and_a_short_plan_is_refused() -> None:
    motion = track(arc(0.0), 0.0)
    np.testing.assert_allclose(motion.xy, 0.0, atol=1e-9)
    with pytest.raises(
        ValueError, match=r"the plan ends after 3.0 s, but 4.0 s are to be driven; shorten the horizon"
    ):
        track(Trajectory.from_waypoints(TIMES[:6], np.column_stack([4 * TIMES[:6], np.zeros(6)])), 8.0)


def test_comfort_names_what_is_too_much() -> None:
    calm = track(arc(8.0), 8.0)
    assert comfort(calm).comfortable
    lengthwise = np.where(calm.times > 2.0, -6.0, 0.0)
    harsh = replace(calm, acceleration=lengthwise)
    assert set(comfort(harsh).exceeded) == {"braking", "lengthwise_jerk"}
    assert comfort(harsh).braking == pytest.approx(6.3, abs=0.4)
    weaving = replace(calm, steering=0.3 * np.sin(6 * calm.times))
    assert {"lateral", "jerk", "yaw_acceleration"} <= set(comfort(weaving).exceeded)
    with pytest.raises(ValueError, match="at least 15 finite instants, not 15"):
        comfort(replace(calm, times=calm.times[:15], acceleration=np.full(15, np.nan)))


def test_a_free_road_that_is_driven_well_scores_one() -> None:
    score = driver_score(arc(8.0), scene())
    assert (score.no_collision, score.drivable, score.time_to_collision, score.comfort) == (1, 1, 1, 1)
    assert score.score == pytest.approx(1.0, abs=0.01)
    assert score.seconds == 4.0


def test_progress_is_a_share_of_the_references() -> None:
    score = driver_score(arc(4.0), replace(scene(), speed=4.0))
    assert score.progress == pytest.approx(0.5, abs=0.03)
    assert score.score == pytest.approx((5 * score.progress + 7) / 12)
    crawling = replace(scene(), reference_progress=2.0)
    assert driver_score(arc(8.0), crawling).progress == 1.0


def test_driving_into_a_standing_car_scores_nothing_and_into_a_barrier_half() -> None:
    into = scene((20.0, 0.0, 0.0))
    assert driver_score(arc(8.0), into).score == 0.0
    barrier = driver_score(arc(8.0), replace(into, is_object=np.array([True])))
    assert barrier.no_collision == 0.5
    assert driver_score(arc(8.0), replace(into, present=np.zeros((1, INSTANTS), dtype=bool))).no_collision == 1.0


def test_being_struck_from_behind_is_nobodys_fault_here() -> None:
    score = driver_score(arc(4.0), replace(scene((-12.0, 0.0, 12.0)), speed=4.0))
    assert score.no_collision == 1.0


def test_close_behind_a_slow_car_the_time_to_collision_is_too_short() -> None:
    following = scene((12.0, 0.0, 5.0))
    score = driver_score(arc(8.0, -0.75), following)
    assert (score.no_collision, score.time_to_collision) == (1.0, 0.0)
    assert driver_score(arc(8.0, -0.75), scene((40.0, 0.0, 5.0))).time_to_collision == 1.0


def test_off_the_road_scores_nothing() -> None:
    assert driver_score(arc(8.0, curvature=0.02), scene()).score == 0.0


def test_a_plan_of_three_seconds_is_scored_for_three_and_what_cannot_be_scored_is_told() -> None:
    short = Trajectory.from_waypoints(TIMES[:6], np.column_stack([8 * TIMES[:6], np.zeros(6)]), 8.0)
    assert driver_score(short, scene()).seconds == 3.0
    known = replace(scene((40.0, 3.0, 0.0)), others=others((40.0, 3.0, 0.0))[:, :20])
    with pytest.raises(ValueError, match=r"known for 2.0 s, but 4.0 s are scored; shorten the horizon"):
        driver_score(arc(8.0), known)
    broken = replace(arc(8.0), xy=np.full((8, 2), np.nan))
    with pytest.raises(ValueError, match="count it as one that failed"):
        driver_score(broken, scene())
