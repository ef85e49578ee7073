"""Scenarios: the same from the same seed in any process, well placed, and about what their names say."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.outcome import STEP_S
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Attribute, Category
from opendrivevla_ros.world.vehicle import ego_box


def digest(family: str, seed: int) -> str:
    """A hash of the map and of 4 s of everybody's motion, to the last bit."""
    world = World(make_scenario(family, seed))
    found = hashlib.sha256(np.concatenate(world.scenario.road.drivable).tobytes())
    for _ in range(40):
        world.step(STEP_S, expert_command(world))
        found.update(repr(world.state.ego).encode())
        found.update(repr(world.state.actors).encode())
    return found.hexdigest()


@pytest.mark.parametrize("family", ["junction_left", "cut_in", "crossing_pedestrian"])
def test_a_scenario_is_the_same_again_in_this_process_and_in_another(family: str) -> None:
    here = digest(family, 12)
    assert digest(family, 12) == here
    assert digest(family, 13) != here
    program = f"import sys; sys.path.insert(0, {__file__.rsplit('/', 1)[0]!r}); import test_families; "
    program += f"print(test_families.digest({family!r}, 12))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == here


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_overlaps_anybody_at_the_start(family: str) -> None:
    for seed in range(12):
        world = World(make_scenario(family, seed))
        boxes = np.vstack([world.traffic.boxes(), ego_box(world.ego)])
        for row in range(len(boxes) - 1):
            assert not overlaps(boxes[row], boxes[row + 1 :]).any()
        assert not world.off_road()


@pytest.mark.parametrize("family", ["braking_lead", "junction_straight", "crossing_pedestrian", "cut_in"])
def test_traffic_does_not_run_into_each_other(family: str) -> None:
    for seed in range(3):
        world = World(make_scenario(family, seed))
        while not world.finished and world.time_ns < 25e9:
            for _ in range(5):
                world.step(STEP_S, expert_command(world))
            boxes = world.traffic.boxes()[world.traffic.present[:-1]]
            for row in range(len(boxes) - 1):
                assert not overlaps(boxes[row], boxes[row + 1 :]).any()


WHO = {
    "braking_lead": {Category.CAR, Category.TRUCK},
    "stopped_lead": {Category.CAR, Category.TRUCK},
    "stopped_queue": {Category.CAR, Category.TRUCK},
    "cut_in": {Category.CAR, Category.TRUCK},
    "crossing_pedestrian": {Category.PEDESTRIAN},
    "occluded_pedestrian": {Category.PEDESTRIAN, Category.TRUCK},
    "parked_cars": {Category.CAR},
    "cyclist": {Category.BICYCLE},
    "oncoming": {Category.CAR},
}


@pytest.mark.parametrize(("family", "categories"), WHO.items())
def test_a_family_is_about_those_its_name_says(family: str, categories: set[Category]) -> None:
    for seed in range(20):
        scenario = make_scenario(family, seed)
        assert scenario.focus
        assert {scenario.parts[i].category for i in scenario.focus} <= categories


def test_a_braking_lead_lights_its_brakes_and_a_cut_in_ends_in_the_ego_s_lane() -> None:
    world = World(make_scenario("braking_lead", 1))
    lit = False
    while not world.finished and world.time_ns < 30e9:
        world.step(STEP_S, expert_command(world))
        lit = lit or world.state.actors[world.scenario.focus[0]].brake_lights
    assert lit
    world = World(make_scenario("cut_in", 1))
    beside = float(world.traffic.view.lateral[0, 0])
    while not world.finished:
        world.step(STEP_S, expert_command(world))
    assert abs(beside) > 2.5
    assert abs(float(world.traffic.view.lateral[0, 0])) < 0.3


def test_the_stopped_lead_waits_for_the_ego_and_then_drives_on() -> None:
    world = World(make_scenario("stopped_lead", 2))
    assert world.state.actors[0].attribute is Attribute.STOPPED
    slowest = np.inf
    while not world.finished and world.time_ns < 60e9:
        world.step(STEP_S, expert_command(world))
        slowest = min(slowest, world.ego.speed)
    assert slowest < 1.0
    assert world.finished


def test_the_occluded_pedestrian_starts_behind_the_parked_van() -> None:
    for seed in range(10):
        scenario = make_scenario("occluded_pedestrian", seed)
        world = World(scenario)
        person, van = world.state.actors[0], world.state.actors[1]
        assert van.attribute is Attribute.PARKED
        ego_x, ego_y = world.ego.centre
        sight = np.linspace(0.0, 1.0, 400)[:, None] * [person.x - ego_x, person.y - ego_y] + [ego_x, ego_y]
        dots = np.column_stack([sight, np.zeros(len(sight)), np.full((len(sight), 2), 0.01)])
        box = np.array([van.x, van.y, van.yaw, van.size[0], van.size[1]])
        others = world.traffic.boxes()[1:]
        assert overlaps(box, dots).any() or any(overlaps(other, dots).any() for other in others)


def test_an_unknown_family_and_a_negative_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="no scenario family 'motorway'; choose one of free_road"):
        make_scenario("motorway", 0)
    with pytest.raises(ValueError, match="seed -1 is negative"):
        make_scenario("bend", -1)
