"""The codebook that is built from a vehicle's limits, on motions of other families than its own."""

import time

import numpy as np
import pytest
from benchmarks.action_tokens import BANDS, average_error
from benchmarks.action_tokens import FAMILIES as MOTIONS
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.language.action_lattice import TOKEN_S, MotionLimits, arc, lattice
from opendrivevla_ros.language.k_disk import feasible
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.plan_checks import Limits, Surroundings, check_plan
from opendrivevla_ros.safety.road_users import Body
from opendrivevla_ros.world.expert import STEP_S, expert_command
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.simulation import World

CODEBOOK = lattice()
MOST_ERROR = 0.08  # metres, on average
TOKENS = 10


@pytest.mark.parametrize("family", MOTIONS.values(), ids=list(MOTIONS))
@pytest.mark.parametrize("band", BANDS, ids=str)
def test_it_follows_what_it_was_not_built_from(family, band):
    random = np.random.default_rng(int(band[0]))
    assert average_error(CODEBOOK, family(random.uniform(*band, 200), random)) <= MOST_ERROR


def test_it_follows_what_was_driven_in_the_world():
    pieces = []
    for family in FAMILIES:
        world, poses = World(make_scenario(family, 5)), []
        while not world.finished and len(poses) < 20 * 10:
            poses.append([world.ego.x, world.ego.y, world.ego.yaw])
            world.step(STEP_S, expert_command(world))
        track = np.array(poses)[:: round(TOKEN_S / STEP_S)]
        for start in range(0, len(track) - TOKENS, TOKENS):
            origin, rest = track[start], track[start + 1 : start + 1 + TOKENS]
            away = rest - origin
            cosine, sine = np.cos(origin[2]), np.sin(origin[2])
            ahead, left = away[:, 0] * cosine + away[:, 1] * sine, away[:, 1] * cosine - away[:, 0] * sine
            pieces.append(np.column_stack([ahead, left, away[:, 2]]))
    assert len(pieces) > 30
    assert average_error(CODEBOOK, np.stack(pieces)) <= MOST_ERROR


def test_ten_thousand_drives_are_encoded_in_two_seconds():
    random = np.random.default_rng(0)
    headings = np.cumsum(random.normal(0.0, 0.03, (10_000, TOKENS)), axis=1)
    ahead = random.uniform(0.0, 15.0, (10_000, 1)) * np.ones(TOKENS)
    steps = np.stack([ahead * np.cos(headings), ahead * np.sin(headings)], axis=-1)
    poses = np.concatenate([steps.cumsum(axis=1), headings[..., None]], axis=-1)
    started = time.process_time()  # of all cores, so that others who are busy do not count
    assert CODEBOOK.encode(poses).shape == (10_000, TOKENS)
    assert time.process_time() - started < 2.0


def test_it_is_no_larger_than_the_published_one_and_begins_with_standing_still():
    assert 1500 < len(CODEBOOK) <= 2048
    np.testing.assert_array_equal(CODEBOOK.end_poses[0], 0.0)
    assert len(np.unique(CODEBOOK.end_poses.round(6), axis=0)) == len(CODEBOOK)


def test_every_token_is_one_that_a_vehicle_can_drive():
    assert feasible(CODEBOOK.end_poses).all()
    times = TOKEN_S * np.arange(1, 5)
    limits = Limits(speed=36.0)
    for action in range(len(CODEBOOK)):
        poses = CODEBOOK.decode([int(action)] * len(times))  # driven on and on
        speed = float(np.hypot(*CODEBOOK.end_poses[action, :2]) / TOKEN_S)
        plan = Trajectory.from_waypoints(times, poses[:, :2], speed)
        course = Course.seen_from(plan, np.eye(4), 0.0)
        around = Surroundings(speed=speed, age=0.0, body=Body(front=3.4, rear=0.7, half_width=0.93))
        failed = [check for check in check_plan(course, around, limits) if not check.ok]
        assert failed == [], (action, failed)


@given(st.floats(-1.0, 18.0), st.floats(-0.3, 0.3))
def test_an_arc_is_what_driving_it_in_steps_comes_to(distance: float, heading: float):
    steps = 200
    headings = heading * (np.arange(steps) + 0.5) / steps
    small = distance / steps * np.column_stack([np.cos(headings), np.sin(headings)])
    end = arc(np.array(distance), np.array(heading))
    np.testing.assert_allclose(end[:2], small.sum(axis=0), atol=1e-4)


@pytest.mark.parametrize(("name", "value"), [("forward", 0.0), ("curvature", -0.1), ("backward", np.nan)])
def test_limits_that_are_none_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} of {value} is no limit of a vehicle; give a number above 0"):
        MotionLimits(**{name: value})


def test_only_a_vehicle_that_may_drive_backwards_has_such_tokens():
    ends = lattice(MotionLimits(forward=10.0)).end_poses
    assert ends[:, 0].min() >= 0
    assert np.hypot(*ends[:, :2].T).max() == pytest.approx(5.0, abs=0.06)  # half a row
    limits = MotionLimits(forward=10.0, backward=2.0)
    ends = lattice(limits).end_poses
    assert ends[:, 0].min() == pytest.approx(-1.0, abs=0.11)  # half a row, which is twice as long there
    assert feasible(ends, limits).all()
