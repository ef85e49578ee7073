"""The world as others see it: snapshots, copies, odometry, collisions."""

import numpy as np
import pytest

from opendrivevla_ros.core.geometry import apply, invert
from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import STEP_S
from opendrivevla_ros.world.simulation import StartError, World
from opendrivevla_ros.world.vehicle import EgoCommand


def test_a_copy_goes_its_own_way() -> None:
    world = World(make_scenario("cut_in", 0))
    for _ in range(10):
        world.step(STEP_S, expert_command(world))
    twin = world.copy()
    before = world.state
    for _ in range(20):
        twin.step(STEP_S, EgoCommand(-4.0, 0.1))
    assert world.state.actors == before.actors
    assert world.state.ego == before.ego
    assert twin.state.ego != before.ego


def test_odometry_tells_where_the_ego_was_half_a_second_apart() -> None:
    world = World(make_scenario("bend", 3))
    poses = []
    for _ in range(40):
        world.step(STEP_S, expert_command(world))
        poses.append(world.ego)
    state = world.ego_state()
    assert state.history_observed == 4
    for row, back in zip(state.history, (20, 15, 10, 5), strict=True):
        was = poses[-1 - back]
        there = apply(invert(state.base_to_world), [was.x, was.y, 0.0])
        np.testing.assert_allclose(row[:2], there[:2], atol=1e-6)
        assert row[2] == pytest.approx(was.yaw - world.ego.yaw, abs=1e-6)
    assert state.is_finite
    assert state.speed == world.ego.speed


def test_before_the_start_history_is_continued_backwards_and_not_called_observed() -> None:
    world = World(make_scenario("free_road", 1))
    state = world.ego_state()
    assert state.history_observed == 0
    np.testing.assert_allclose(state.history[:, 0], -world.ego.speed * np.array([2.0, 1.5, 1.0, 0.5]), atol=1e-6)
    for _ in range(7):
        world.step(STEP_S, expert_command(world))
    assert world.ego_state().history_observed == 1


def test_ids_are_places_in_the_cast_and_who_has_left_the_map_is_not_listed() -> None:
    world = World(make_scenario("oncoming", 0))
    first = world.state
    assert [actor.id for actor in first.actors] == list(range(len(world.scenario.parts)))
    for _ in range(250):
        world.step(STEP_S, EgoCommand(-3.0, 0.0))
    left = {actor.id for actor in first.actors} - {actor.id for actor in world.state.actors}
    assert left
    assert not world.traffic.present[sorted(left)].any()
    assert world.state.road is first.road


def test_perturbed_starts_have_the_spread_of_their_kind() -> None:
    random = np.random.default_rng(0)
    errors = [StartError.drawn(random) for _ in range(2000)]
    spread = np.std([[error.lateral, error.yaw, error.speed] for error in errors], axis=0)
    np.testing.assert_allclose(spread, [0.35, 0.04, 0.8], rtol=0.2)
    assert max(abs(error.lateral) for error in errors) <= 0.525 + 1e-9
