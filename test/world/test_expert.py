"""The expert: no collisions, comfort, obedience, and futures that come true."""

import numpy as np
import pytest

from opendrivevla_ros.world.expert import HORIZON_STEPS, expert_command, roll_out
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.outcome import STEP_S, drive
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import StartError, World

SEEDS = 40


@pytest.mark.parametrize("family", FAMILIES)
def test_the_expert_passes_its_scenarios_in_comfort_and_without_a_collision(family: str) -> None:
    share = range(FAMILIES.index(family), SEEDS, len(FAMILIES))
    for index in share:
        seed = seed_of(Split.TEST, index)
        error = StartError.drawn(np.random.default_rng(seed)) if index % 2 else None
        outcome = drive(World(make_scenario(family, seed), error), expert_command)
        assert outcome.passed, f"{family} {seed}: {outcome}"
        assert outcome.completion == 1.0
        assert outcome.hardest_braking < 7.0
        assert outcome.most_lateral_acceleration < 5.0


@pytest.mark.parametrize("family", ["junction_left", "cut_in", "crossing_pedestrian", "parked_cars"])
def test_a_rolled_out_future_is_what_then_happens_and_leaves_the_world_as_it_is(family: str) -> None:
    world = World(make_scenario(family, 3), StartError(0.3, 0.04, -0.5))
    for _ in range(35):
        world.step(STEP_S, expert_command(world))
    before = world.state
    future = roll_out(world)
    assert world.state.actors == before.actors
    assert world.ego == before.ego
    assert future.trajectory.times.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    base = np.linalg.inv(world.ego.base_to_world)
    for step in range(HORIZON_STEPS):
        world.step(STEP_S, expert_command(world))
        point, rest = divmod(step + 1, 5)
        if rest == 0:
            ego = world.ego
            np.testing.assert_array_equal(future.ego[point - 1], [ego.x, ego.y, ego.yaw])
            np.testing.assert_allclose(
                future.ego_in_base[point - 1, :2], (base @ [ego.x, ego.y, 0.0, 1.0])[:2], atol=1e-9
            )
            for actor in world.state.actors:
                np.testing.assert_array_equal(future.actors[point - 1, actor.id, :2], [actor.x, actor.y])
                assert future.present[point - 1, actor.id]


def test_the_expert_comes_back_to_its_lane_from_a_perturbed_start() -> None:
    for lateral, yaw in ((0.7, 0.08), (-0.7, -0.08), (0.5, -0.08)):
        world = World(make_scenario("free_road", 0), StartError(lateral, yaw, 0.8))
        assert world.lateral == pytest.approx(lateral + 1.4 * yaw, abs=0.05)
        for _ in range(40):
            world.step(STEP_S, expert_command(world))
        assert abs(world.lateral) < 0.1


def test_the_expert_stops_for_the_pedestrian_and_passes_the_cyclist_beside() -> None:
    world = World(make_scenario("crossing_pedestrian", 0))
    speeds = []
    while not world.finished:
        world.step(STEP_S, expert_command(world))
        speeds.append(world.ego.speed)
    assert min(speeds) < 0.5 * max(speeds)
    world = World(make_scenario("cyclist", 0))
    passed_beside = False
    while not world.finished:
        world.step(STEP_S, expert_command(world))
        view = world.traffic.view
        if abs(view.s[0, 0] - view.s[0, -1]) < 1.0:
            passed_beside = True
            assert view.lateral[0, -1] - view.lateral[0, 0] > 1.5
    assert passed_beside
