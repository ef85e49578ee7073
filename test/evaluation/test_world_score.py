"""The driver score in the world: the expert's own plans score high, and standing, leaving the road and hitting low."""

import numpy as np
import pytest

from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.evaluation.driver_score import DriverScore, driver_score
from opendrivevla_ros.evaluation.world_score import world_scene
from opendrivevla_ros.world.expert import expert_command, roll_out
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import World


def worlds(family: str, seconds: float = 3.0) -> World:
    world = World(make_scenario(family, seed_of(Split.VALIDATION, 0)))
    for _ in range(round(seconds * 10)):
        world.step(0.1, expert_command(world))
    return world


def scored(world: World, plan: Trajectory) -> DriverScore:
    return driver_score(plan, world_scene(world, roll_out(world)), horizon_s=3.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_experts_plan_neither_hits_nor_leaves_and_gets_on(family: str) -> None:
    world = worlds(family)
    score = scored(world, roll_out(world).trajectory)
    assert (score.no_collision, score.drivable) == (1.0, 1.0)
    assert score.progress > 0.9
    assert score.score > 0.4


def test_standing_still_gets_nowhere_and_turning_off_leaves_the_road() -> None:
    world = worlds("free_road")
    times = np.arange(1, 7) * 0.5
    stop = Trajectory.from_waypoints(times, np.zeros((6, 2)), world.ego.speed)
    assert scored(world, stop).progress < 0.5
    aside = np.column_stack([world.ego.speed * times, 1.5 * times**2])
    assert scored(world, Trajectory.from_waypoints(times, aside, world.ego.speed)).drivable == 0.0


def test_driving_on_behind_a_braking_lead_hits_or_is_too_near() -> None:
    family = "stopped_lead"
    lowest = 1.0
    for seconds in (3.0, 5.0, 7.0):
        world = worlds(family, seconds)
        times = np.arange(1, 7) * 0.5
        on = np.column_stack([max(world.ego.speed, 6.0) * times, np.zeros(6)])
        lowest = min(lowest, scored(world, Trajectory.from_waypoints(times, on, world.ego.speed)).score)
    assert lowest < 0.6
