"""Rules of traffic on a hand-made road of two lanes each way."""

import numpy as np

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.world.casting import Cue, Neighbours, Part
from opendrivevla_ros.world.crowd import crossing_walk
from opendrivevla_ros.world.draft import Draft
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.road_builder import CrossSection, RoadMapBuilder
from opendrivevla_ros.world.route import Route
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Attribute, Category
from opendrivevla_ros.world.vehicle import EgoCommand

DT = 0.1
STAND, ROLL = EgoCommand(-3.0, 0.0), EgoCommand(0.0, 0.0)
REFERENCE = np.column_stack([np.arange(400.0), np.zeros(400)])


def world(*parts: Part, ego_speed: float = 0.0, walks: tuple[Path, ...] = ()) -> World:
    """The ego at 20 m on path 0, the inner lane; path 1 is the outer lane beside it; walks are paths 2 and on."""
    builder = RoadMapBuilder(12.0)
    road = builder.add_road(REFERENCE, CrossSection(2, 3.5))
    town = builder.build()
    inner, outer = (Route.along(town, (lane,)) for lane in road.forward)
    draft = Draft(town, inner, start_s=20.0, start_speed=ego_speed, goal_s=300.0)
    draft.add_route(outer)
    draft.neighbours = [Neighbours(right=1), Neighbours(left=0)]
    for walk in walks:
        draft.add_walk(walk)
    draft.parts += parts
    made = World(draft.finish("test", 0, np.random.default_rng(0)))
    assert len(made.scenario.parts) == len(parts)
    return made


def car(path: int, s: float, speed: float, cruise: float, **more: object) -> Part:
    return Part(Category.CAR, (4.5, 1.8, 1.5), path, s, speed=speed, cruise=cruise, **more)  # type: ignore[arg-type]


def test_a_faster_vehicle_changes_lane_past_a_slow_leader_and_indicates() -> None:
    scene = world(car(0, 100.0, 3.0, 3.0), car(0, 75.0, 11.0, 11.0, changes_lane=True))
    indicators = set()
    for _ in range(120):
        scene.step(DT, STAND)
        indicators.add(scene.state.actors[1].indicator)
    assert scene.traffic.path[1] == 1
    assert scene.traffic.s[1] > scene.traffic.s[0] + 10.0
    assert indicators == {0, -1}


def test_a_gap_that_is_taken_is_not_changed_into() -> None:
    scene = world(car(0, 100.0, 3.0, 3.0), car(0, 85.0, 3.0, 11.0, changes_lane=True), car(1, 86.0, 3.0, 3.0))
    for _ in range(150):
        scene.step(DT, STAND)
        boxes = scene.traffic.boxes()
        assert not overlaps(boxes[1], boxes[[0, 2]]).any()
    assert scene.traffic.path[1] == 0


def test_traffic_behind_stops_for_an_ego_that_stands() -> None:
    scene = world(car(0, 2.6, 0.0, 10.0), ego_speed=0.0)
    for _ in range(100):
        scene.step(DT, STAND)
    assert scene.collision() is None
    assert scene.state.actors[0].attribute is Attribute.STOPPED
    assert scene.state.actors[0].brake_lights


def test_a_cue_slows_a_vehicle_only_once_the_ego_is_near_and_only_for_a_while() -> None:
    cue = Cue(ego_s=60.0, delay=0.5, duration=3.0, speed=2.0, deceleration=4.0)
    scene = world(car(1, 60.0, 10.0, 10.0, cue=cue), ego_speed=10.0)
    speeds = []
    for _ in range(130):
        scene.step(DT, ROLL)
        speeds.append((scene.progress + 1.4, scene.state.actors[0].speed))
    assert min(speed for s, speed in speeds if s < 62.0) > 9.0
    assert 1.8 < min(speed for _, speed in speeds) < 2.6
    assert speeds[-1][1] > 6.0


def test_a_pedestrian_waits_for_the_cue_crosses_and_is_let_pass_by_traffic() -> None:
    walk = crossing_walk(Path.through(REFERENCE), 120.0, -7.5, 7.5)
    person = Part(Category.PEDESTRIAN, (0.5, 0.6, 1.7), 2, cruise=1.4, cue=Cue(ego_s=40.0))
    scene = world(person, car(1, 60.0, 8.0, 10.0), ego_speed=5.0, walks=(walk,))
    assert scene.state.actors[0].attribute is Attribute.STANDING
    speeds = []
    for step in range(160):
        scene.step(DT, ROLL if step < 60 else STAND)
        boxes = scene.traffic.boxes()
        assert not overlaps(boxes[0], boxes[1:]).any()
        speeds.append(float(scene.traffic.speed[1]))
    assert min(speeds[:120]) < 4.0
    assert scene.state.actors[0].walked > 10.0


def test_a_pedestrian_stops_before_a_vehicle_that_stands_in_the_way() -> None:
    walk = crossing_walk(Path.through(REFERENCE), 100.0, -7.5, 7.5)
    person = Part(Category.PEDESTRIAN, (0.5, 0.6, 1.7), 2, speed=1.4, cruise=1.4)
    blocking = Part(Category.CAR, (4.5, 1.8, 1.5), pose=(100.0, -2.0, 0.0), parked=True)
    scene = world(person, blocking, walks=(walk,))
    for _ in range(100):
        scene.step(DT, STAND)
    boxes = scene.traffic.boxes()
    assert not overlaps(boxes[0], boxes[1:]).any()
    assert scene.state.actors[0].attribute is Attribute.STANDING
    assert scene.state.actors[0].walked > 2.0
