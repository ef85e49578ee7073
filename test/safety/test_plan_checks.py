"""Every check of a plan: good plans pass all of them, and each fault fails the check that is for it."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safety.courses import BODY, LIMITS, TIMES, course, failed, standing, straight

from opendrivevla_ros.core.geometry import Array, planar_transform
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.plan_checks import Check, Surroundings, check_plan
from opendrivevla_ros.safety.road_users import Movers


def checked(xy: Array, speed: float, **around: object) -> tuple[Check, ...]:
    surroundings = Surroundings(speed=speed, age=0.2, body=BODY)
    return check_plan(course(xy, speed), replace(surroundings, **around), LIMITS)  # type: ignore[arg-type]


@given(speed=st.floats(0.0, 20.0), acceleration=st.floats(-3.0, 2.0), curvature=st.floats(-0.1, 0.1))
def test_plans_that_people_drive_pass_every_check(speed: float, acceleration: float, curvature: float) -> None:
    times = np.minimum(TIMES, speed / -acceleration) if acceleration < 0 else TIMES
    way = speed * times + acceleration * times**2 / 2
    curvature = np.clip(curvature, -2.0 / max(speed + 3 * acceleration, speed, 1) ** 2, None)
    curvature = float(np.clip(curvature, None, 2.0 / max(speed + 3 * acceleration, speed, 1) ** 2))
    bend = np.column_stack([np.sin(curvature * way), 1 - np.cos(curvature * way)]) / curvature if curvature else None
    xy = np.column_stack([way, np.zeros(6)]) if bend is None else bend
    checks = checked(xy, speed)
    assert failed(checks) == []
    assert len({check.name for check in checks}) == len(checks) == 20


def test_a_plan_of_ten_points_is_checked_to_its_own_end() -> None:
    times = np.arange(1, 11) * 0.5
    xy = np.column_stack([10.0 * times, np.zeros(10)])
    long = Course.seen_from(Trajectory.from_waypoints(times, xy, 10.0), np.eye(4), 0.2)
    around = Surroundings(speed=10.0, age=0.2, body=BODY, movers=standing(45.0, 0.0))
    checks = {check.name: check for check in check_plan(long, around, LIMITS)}
    assert failed(tuple(checks.values())) == []
    assert checks["horizon"].value == pytest.approx(4.8)
    assert 3.5 < checks["overlap"].value < 4.2  # the box is 39 m ahead of the bumper, beyond what six points reach
    curb = np.array([[42.0, -5.0], [42.0, 5.0]])
    across = check_plan(long, replace(around, movers=Movers(), boundaries=(curb,)), LIMITS)
    assert failed(across) == ["boundary"]


@pytest.mark.parametrize(
    ("name", "xy", "speed"),
    [
        ("step_length", straight(30.0), 30.0),
        ("behind", straight(-1.0), 0.0),
        ("acceleration", straight(2.0, 6.0), 2.0),
        ("braking", np.column_stack([[5, 10, 10.5, 10.6, 10.7, 10.8], np.zeros(6)]), 10.0),
        ("speed_jump", straight(10.0), 4.0),
        ("curvature", np.column_stack([[2, 4, 5, 5, 4, 2], [0, 0.2, 1.5, 3.5, 4.8, 5]]), 4.0),
        ("lateral_acceleration", np.column_stack([[7, 14, 20, 25, 28, 29], [0.5, 2, 5, 10, 16, 23]]), 14.0),
        ("heading_step", np.column_stack([[2, 4, 4, 4, 6, 8], [0, 0, 2, 4, 4, 4]]), 4.0),
        ("jerk", np.column_stack([[2, 4, 8, 10, 14, 16], np.zeros(6)]), 4.0),
    ],
)
def test_each_wrong_motion_fails_its_check(name: str, xy: Array, speed: float) -> None:
    checks = checked(xy, speed)
    assert name in failed(checks)
    (check,) = (check for check in checks if check.name == name)
    assert check.value > check.limit
    assert f"{check.limit:.1f}" in check.message or f"{check.limit:.2f}" in check.message


def test_no_motion_is_checked_of_a_plan_that_is_none() -> None:
    good = course(straight(5.0), 5.0)
    around = Surroundings(speed=5.0, age=0.2, body=BODY)
    for name, wrong in (
        ("finite", replace(good, xy=np.where(good.xy == 0, np.nan, good.xy))),
        ("times", replace(good, times=good.times[[0, 2, 1, 3, 4, 5, 6]])),
        ("points", Course(good.times[:2], good.xy[:2], good.yaw[:2])),
    ):
        checks = check_plan(wrong, around, LIMITS)
        assert name in failed(checks)
        assert len(checks) == 5


def test_an_old_plan_that_ends_soon_fails_by_its_age_and_its_horizon() -> None:
    late = course(straight(5.0), 5.0, age=2.0)
    checks = check_plan(late, Surroundings(speed=5.0, age=2.0, body=BODY), LIMITS)
    assert set(failed(checks)) == {"age", "horizon", "start"}  # the vehicle stands where the plan began


@given(x=st.floats(-4, 4), y=st.floats(-4, 4))
def test_a_plan_that_starts_elsewhere_is_measured_from_the_vehicle(x: float, y: float) -> None:
    plan = Trajectory.from_waypoints(TIMES, straight(5.0), 5.0)
    moved = Course.seen_from(plan, planar_transform(x, y, 0.0), 0.0)
    checks = {c.name: c for c in check_plan(moved, Surroundings(speed=5.0, age=0.0, body=BODY), LIMITS)}
    assert checks["start"].value == pytest.approx(np.hypot(x, y), abs=1e-9)
    assert checks["start"].ok == (checks["start"].value <= LIMITS.start)


def test_a_plan_far_from_the_one_before_fails() -> None:
    before = course(straight(5.0), 5.0)
    aside = straight(5.0) + np.column_stack([np.zeros(6), np.linspace(0.2, 9.0, 6)])
    checks = {check.name: check for check in checked(aside, 5.0, previous=before)}
    assert checks["plan_jump"].value == pytest.approx(3.72, abs=0.1)  # at the horizon
    assert not checks["sideways_jump"].ok
    aside[:, 1] *= 1.2
    checks = {check.name: check for check in checked(aside, 5.0, previous=before)}
    assert not checks["plan_jump"].ok
    over = Course(before.times - 9.0, before.xy, before.yaw)
    assert "plan_jump" not in failed(checked(aside, 5.0, previous=over))


@settings(max_examples=60)
@given(beyond=st.floats(-20.0, 20.0), faster=st.floats(0.0, 2.0))
def test_beyond_the_horizon_a_plan_may_change_and_a_faster_one_stays_on_its_line(beyond: float, faster: float) -> None:
    """Around a bend of 12 m, whose line the one before follows for 3 s."""

    def bend(speed: float) -> np.ndarray:
        turned = speed * TIMES / 12.0
        return 12.0 * np.column_stack([np.sin(turned), 1 - np.cos(turned)])

    before = course(bend(5.0), 5.0)
    plan = bend(5.0 + faster)
    plan[3:] += beyond * np.array([0.3, 1.0])
    checks = {check.name: check for check in checked(plan, 5.0, previous=before)}
    assert checks["plan_jump"].value <= 1.5 * faster + 0.2
    assert checks["sideways_jump"].value < 0.2


@settings(max_examples=60)
@given(distance=st.floats(4.0, 60.0), speed=st.floats(1.0, 20.0))
def test_a_standing_car_ahead_is_met_when_it_is_reached(distance: float, speed: float) -> None:
    gap = distance - BODY.front - 4.5 / 2 - LIMITS.margin  # from bumper to bumper, less the margin
    checks = {check.name: check for check in checked(straight(speed), speed, movers=standing(distance, 0.0))}
    reached = gap / speed
    if reached <= 2.9:
        assert checks["overlap"].value == pytest.approx(max(reached, 0.0), abs=0.11)
    elif reached > 3.0:
        assert np.isinf(checks["overlap"].value)
    assert checks["overlap"].ok == (checks["overlap"].value >= LIMITS.time_to_overlap)
    stopping = checks["stopping_distance"]
    if reached <= 2.9:
        assert stopping.value == pytest.approx(speed * LIMITS.reaction + speed**2 / (2 * LIMITS.hard_braking))
        assert stopping.limit == pytest.approx(max(gap, 0.0), abs=speed * 0.1 + 1e-6)


def test_who_is_beside_the_way_or_leaves_it_in_time_is_not_met() -> None:
    for movers in (
        standing(15.0, 3.0),
        replace(standing(20.0, -1.0), velocity=np.array([[0.0, 4.0]])),  # walks off before the vehicle comes
        replace(standing(10.0, 0.0), velocity=np.array([[8.0, 0.0]])),  # drives as fast
        Movers(
            np.array([[20.0, 0.0, 0.0, 4.5, 1.9]]),
            np.zeros((1, 2)),
            np.array([0.5, 1.0]),
            np.array([[[20, 4], [20, 8]]]),
        ),
    ):
        assert "overlap" not in failed(checked(straight(8.0), 8.0, movers=movers))


def test_who_walks_into_the_way_is_met_there() -> None:
    walking = Movers(
        np.array([[12.0, -4.0, 1.57, 0.6, 0.6]]), np.array([[0.0, 3.0]]), np.zeros(0), np.zeros((1, 0, 2))
    )
    checks = {check.name: check for check in checked(straight(8.0), 8.0, movers=walking)}
    assert not checks["overlap"].ok
    assert checks["overlap"].value == pytest.approx(1.1, abs=0.15)  # when the front is 12 m away, less 0.3 m of legs


def test_predicted_paths_lead_from_one_instant_to_the_next_and_on_with_the_velocity() -> None:
    paths = np.array([[[1.0, 0.0], [3.0, 2.0]]])
    movers = Movers(np.array([[0.0, 0.0, 0.3, 4.0, 2.0]]), np.array([[1.0, 1.0]]), np.array([0.5, 1.0]), paths)
    places = movers.at(np.array([0.0, 0.25, 0.5, 0.75, 1.0, 3.0]))[0]
    np.testing.assert_allclose(places[:, :2], [[0, 0], [0.5, 0], [1, 0], [2, 1], [3, 2], [5, 4]])
    np.testing.assert_allclose(places[:, 2:], [[0.3, 4.0, 2.0]] * 6)


def test_a_road_boundary_may_be_neared_and_not_crossed() -> None:
    kerb = np.array([[-5.0, -1.2], [40.0, -1.2]])
    assert "boundary" not in failed(checked(straight(8.0), 8.0, boundaries=[kerb]))
    swerving = straight(8.0) - np.column_stack([np.zeros(6), np.linspace(0.1, 1.0, 6)])
    assert "boundary" in failed(checked(swerving, 8.0, boundaries=[kerb, kerb[:1]]))


def test_half_of_a_limit_is_worth_a_warning() -> None:
    strains = [next(c for c in checked(straight(s), s) if c.name == "step_length") for s in (12.0, 13.0, 25.0, 25.1)]
    assert [(check.ok, check.warns) for check in strains] == [
        (True, False),
        (True, True),
        (True, True),
        (False, False),
    ]


@given(values=st.lists(st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, 1e300]), min_size=14, max_size=14))
def test_whatever_the_numbers_are_no_check_raises_and_none_that_is_not_finite_passes(values: list[float]) -> None:
    numbers = np.array(values).reshape(7, 2)
    wrong = replace(course(straight(5.0), 5.0), xy=numbers)
    with np.errstate(all="ignore"):
        checks = check_plan(wrong, Surroundings(speed=5.0, age=0.1, body=BODY), LIMITS)
    if not np.isfinite(numbers).all():
        assert "finite" in failed(checks)


def test_all_checks_with_fifty_agents_take_less_than_two_milliseconds() -> None:
    random = np.random.default_rng(0)
    places, sizes = random.uniform(-40, 40, (50, 2)), np.full((50, 2), [4.5, 1.9])
    boxes = np.column_stack([places, random.uniform(-3, 3, 50), sizes])
    paths = places[:, None] + np.cumsum(random.normal(0, 1, (50, 6, 2)), axis=1)
    movers = Movers(boxes, random.normal(0, 4, (50, 2)), TIMES, paths)
    lines = [np.column_stack([np.linspace(-40, 40, 40), np.full(40, y)]) for y in (-8, -4, 4, 8)]
    around = Surroundings(8.0, 0.2, BODY, course(straight(8.0), 8.0), movers, lines)
    plan = course(straight(8.0, -1.0), 8.0)
    check_plan(plan, around, LIMITS)
    spent = []
    for _ in range(30):
        began = time.process_time()
        check_plan(plan, around, LIMITS)
        spent.append(time.process_time() - began)
    assert min(spent) < 2e-3  # a machine that has much to do only adds to it
