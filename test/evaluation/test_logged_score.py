"""The driver score at recorded moments: as in the world that they were recorded in, and what cannot be scored."""

import math
from dataclasses import replace

import numpy as np
import pytest
from training.autovla.drives import standing_car, stored

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S, Trajectory
from opendrivevla_ros.datasets.driving_samples import AgentLabel
from opendrivevla_ros.datasets.world_samples import NoPictures, WorldSampler
from opendrivevla_ros.evaluation.driver_score import driver_score
from opendrivevla_ros.evaluation.logged_score import driver_reward, logged_scene
from opendrivevla_ros.evaluation.world_score import world_scene
from opendrivevla_ros.world.expert import roll_out
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.simulation import World

SPEED = 8.0
TEN_TIMES = np.arange(1, 11) * 0.5


def plan(xy: Array, speed: float = SPEED) -> Trajectory:
    return Trajectory.from_waypoints(FUTURE_TIMES_S, xy, speed)


def straight(speed: float) -> Array:
    return np.outer(FUTURE_TIMES_S, [speed, 0.0])


def reward(*agents: AgentLabel, xy: Array) -> float:
    return driver_reward(stored(0, speed=SPEED, agents=agents), plan(xy))


def test_going_on_scores_full_where_nobody_is_and_nothing_into_somebody():
    assert reward(xy=straight(SPEED)) == 1.0
    assert reward(standing_car(18.0), xy=straight(SPEED)) == 0.0
    assert reward(standing_car(18.0, left=3.5), xy=straight(SPEED)) == 1.0


def test_standing_still_gets_nowhere_and_leaving_the_road_scores_nothing():
    halting = np.outer(np.minimum(FUTURE_TIMES_S, 1.0), [SPEED / 2, 0.0])
    assert 0.0 < reward(xy=halting) < 0.6
    aside = np.column_stack([SPEED * FUTURE_TIMES_S, 1.2 * FUTURE_TIMES_S**2])
    assert reward(xy=aside) == 0.0


def test_beyond_the_labels_of_the_map_nothing_is_off_the_road():
    one = stored(0, speed=SPEED, agents=())
    ring = np.array([[-12.0, -4.0], [12.0, -4.0], [12.0, 4.0], [-12.0, 4.0]])
    near = replace(one.sample, map_elements=(MapElement("drivable_area", 1.0, ring, True),))
    assert driver_reward(replace(one, sample=near), plan(straight(SPEED))) == 1.0
    assert driver_reward(replace(one, sample=replace(one.sample, map_elements=None)), plan(straight(SPEED))) == 1.0


def test_a_hole_in_the_road_is_no_road():
    one = stored(0, speed=SPEED, agents=())
    hole = np.array([[10.0, -1.0], [10.0, 1.0], [14.0, 1.0], [14.0, -1.0]])  # turns the other way
    (road,) = one.sample.map_elements
    island = replace(one.sample, map_elements=(road, MapElement("drivable_area", 1.0, hole, True)))
    assert driver_reward(replace(one, sample=island), plan(straight(SPEED))) == 0.0


def test_a_longer_plan_is_scored_for_three_seconds():
    xy = np.outer(TEN_TIMES, [SPEED, 0.0])
    xy[9:, 1] = 50.0  # off the road, and beyond what the vehicle looks ahead
    one = stored(0, speed=SPEED, agents=())
    assert driver_reward(one, Trajectory.from_waypoints(TEN_TIMES, xy, SPEED)) == 1.0


def test_a_plan_that_cannot_be_scored_gets_nothing():
    broken = replace(plan(straight(SPEED)), xy=np.full((6, 2), np.nan))
    assert driver_reward(stored(0, speed=SPEED, agents=()), broken) == 0.0


def test_a_moment_of_which_too_little_is_known_has_no_reward():
    for one in (stored(0, agents=None), stored(0, known=4)):
        assert math.isnan(driver_reward(one, plan(straight(5.0), 5.0)))
        with pytest.raises(ValueError, match=r"of 6 points of its future and .* road users: no plan can be scored"):
            logged_scene(one.sample)
    one = stored(0)
    lost = replace(one, sample=replace(one.sample, future=np.full((6, 3), np.nan)))
    assert math.isnan(driver_reward(lost, plan(straight(5.0), 5.0)))


@pytest.mark.parametrize("number", ["position", "size", "yaw", "future"])
def test_a_road_user_whose_numbers_are_none_leaves_no_reward(number: str):
    car = standing_car(18.0, left=3.5)
    assert reward(car, xy=straight(SPEED)) == 1.0
    nowhere = np.full_like(np.asarray(getattr(car, number), dtype=float), np.nan)
    broken = replace(car, **{number: nowhere}, future_mask=np.ones(6, dtype=bool))
    assert math.isnan(reward(broken, xy=straight(SPEED)))


@pytest.mark.parametrize("family", ["bend", "cut_in", "crossing_pedestrian", "junction_left", "stopped_lead"])
def test_moments_of_the_world_are_scored_as_the_world_scores_them(family: str):
    sampler = WorldSampler(make_scenario(family, 3), NoPictures(nuscenes_rig()))
    world = World(sampler.scenario)
    differ, scored = 0, 0
    for sample in sampler.follow(world, 6):
        true, logged = world_scene(world, roll_out(world)), logged_scene(sample)
        speed = sample.observation.ego.speed
        left = np.column_stack([speed * FUTURE_TIMES_S, 0.8 * FUTURE_TIMES_S**2])
        for xy in (sample.future[:, :2], straight(speed), straight(speed + 4.0), left):
            first, second = (driver_score(plan(xy, speed), scene, horizon_s=3.0).score for scene in (true, logged))
            differ += abs(first - second) > 0.03
            scored += 1
    assert scored == 24
    assert differ <= 2  # where a box's turn decides by centimetres
