"""Who can be seen in the world, and what a few hundredths of a second change."""

import numpy as np
import pytest
from shapely import Point, Polygon

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.datasets.world_labels import Sight, moved, road_layers
from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.scenery import build_scenery
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Actor, Attribute, Category, Ego, WorldState

SCENARIO = make_scenario("free_road", 0)
SIGHT = Sight(SCENARIO.road, SCENARIO.appearance)


def actor(number: int, category: Category, ahead: float, left: float, size: tuple[float, float, float]) -> Actor:
    """Someone at a place of base_link of an ego at the middle of the scenario's road."""
    x, y, _ = np.array(START.base_to_world @ [ahead, left, 0.0, 1.0])[:3]
    return Actor(number, category, Attribute.STOPPED, float(x), float(y), START.yaw, size)


START = World(SCENARIO).ego
START = Ego(START.x, START.y, START.yaw, 5.0)
CAR, TRUCK, PERSON = (4.5, 1.8, 1.5), (9.0, 2.5, 3.4), (0.6, 0.6, 1.75)


def seen(*actors: Actor) -> list:
    state = WorldState(0, START, actors, SCENARIO.road, SCENARIO.appearance, Command.KEEP_FORWARD)
    return list(SIGHT.seen(state))


def test_a_car_in_the_open_is_seen_whole_and_counts_fewer_points_far_away() -> None:
    near, far = seen(actor(0, Category.CAR, 10, 0, CAR)), seen(actor(0, Category.CAR, 20, 0, CAR))
    assert (near[0].share, near[0].visibility) == (1.0, 4)
    assert near[0].points == pytest.approx(4 * far[0].points, rel=0.2)


def test_a_person_behind_a_truck_is_hidden_but_listed() -> None:
    truck = actor(0, Category.TRUCK, 12, -2, TRUCK)
    hidden = seen(truck, actor(1, Category.PEDESTRIAN, 20, -3, PERSON))[1]
    assert (hidden.share, hidden.points, hidden.visibility) == (0.0, 0, 1)
    assert seen(truck, actor(1, Category.PEDESTRIAN, 20, 4, PERSON))[1].share == 1.0


def test_a_low_car_hides_only_part_of_what_stands_behind() -> None:
    person = seen(actor(0, Category.CAR, 6, 0, CAR), actor(1, Category.PEDESTRIAN, 9.5, 0, (0.6, 0.6, 1.9)))[1]
    assert 0 < person.share < 1


def test_who_stands_behind_a_house_is_hidden() -> None:
    props = build_scenery(SCENARIO.road, SCENARIO.appearance.seed, lamps=False)
    walls = [mesh for prop in props for name, mesh in prop.parts if name and name.startswith("facade")]
    eye = np.array([START.x, START.y])
    house = min((mesh.vertices[:, :2] for mesh in walls), key=lambda points: np.hypot(*(points.mean(0) - eye)))
    middle = house.mean(axis=0)
    outward = (middle - eye) / np.hypot(*(middle - eye))
    reach = ((house - middle) @ outward).max()
    for distance, share in ((reach + 2.0, 0.0), (-reach - 3.0, 1.0)):
        x, y = middle + outward * distance
        person = Actor(0, Category.PEDESTRIAN, Attribute.STANDING, float(x), float(y), 0.0, PERSON)
        assert seen(person)[0].share == share


def test_nobody_is_labelled_far_away() -> None:
    assert seen(actor(0, Category.CAR, 81.5, 0, CAR)) == []
    assert len(seen(actor(0, Category.CAR, 80, 0, CAR))) == 1


def test_a_moved_state_goes_on_as_the_world_does() -> None:
    world = World(SCENARIO)
    for _ in range(30):
        world.step(0.1, expert_command(world))
    before = world.state
    world.step(0.1, expert_command(world))
    after, guessed = world.state, moved(before, 0.1)
    assert np.hypot(guessed.ego.x - after.ego.x, guessed.ego.y - after.ego.y) < 0.02
    for found, truth in zip(guessed.actors, after.actors, strict=True):
        assert np.hypot(found.x - truth.x, found.y - truth.y) < 0.05
    back = moved(guessed, -0.1)
    assert back.ego.x == pytest.approx(before.ego.x)
    assert back.ego.yaw == pytest.approx(before.ego.yaw)


def test_every_family_has_layers_that_hold_the_ego() -> None:
    for family in ("bend", "junction_left", "cut_in"):
        scenario = make_scenario(family, 1)
        layers = road_layers(scenario.road)
        ego = World(scenario).ego
        assert any(Polygon(outline).contains(Point(ego.x, ego.y)) for outline in layers.drivable)
        lanes = [lane for lane in layers.lanes if not lane.connector]
        assert any(Polygon(lane.outline).contains(Point(ego.x, ego.y)) for lane in lanes)
        assert all(Polygon(lane.outline).is_valid for lane in lanes)
        assert len(layers.boundaries) > 0


def test_layers_keep_the_successors_of_lanes() -> None:
    scenario = make_scenario("junction_left", 1)
    layers = road_layers(scenario.road)
    assert [lane.successors for lane in layers.lanes] == [lane.successors for lane in scenario.road.lanes]
    assert any(lane.connector for lane in layers.lanes)
