"""Scenario families on a road without junctions."""

import numpy as np

from opendrivevla_ros.world.casting import Cue, Neighbours, Part
from opendrivevla_ros.world.crowd import (
    KEEP_APART,
    KERB,
    appearance_of,
    crossing_walk,
    footpath,
    parked_row,
    pedestrian,
    size_of,
    stream,
    vehicle,
)
from opendrivevla_ros.world.draft import Draft
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.road_builder import PARKING_WIDTH
from opendrivevla_ros.world.route import Route
from opendrivevla_ros.world.state import EGO_WIDTH, Category
from opendrivevla_ros.world.streets import OpenRoad, open_road
from opendrivevla_ros.world.vehicle import PASSING_CLEARANCE

_Random = np.random.Generator
# Share of the speed limit at the start of families whose timing is made for it: who comes slower meets nobody.
CRUISING = 0.9
LEAST_NOTICE_S = 2.6  # before a pedestrian would be hit, he steps onto the road: enough to stop at 4 m/s^2
_ACROSS_FOOTPATH = 1.6  # metres that people come across the footpath to the kerb, in plain sight


def free_road(random: _Random) -> Draft:
    """Nothing in the way but gentle bends, and perhaps someone far ahead."""
    speed = _speed_limit(random)
    scene = _Scene(random, open_road(random, speed_limit=speed), speed)
    if random.random() < 0.4:
        scene.draft.add_focus(_lead(random, scene, gap=float(random.uniform(30.0, 55.0)), cruise=speed))
    return scene.filled(random)


def bend(random: _Random) -> Draft:
    """A bend of 12 to 80 m radius."""
    speed = _speed_limit(random)
    road = open_road(random, radius=(12.0, 80.0), speed_limit=speed)
    return _Scene(random, road, speed).filled(random)


def oncoming(random: _Random) -> Draft:
    """A narrow road with a bend, a stream of oncoming traffic, and a car at the kerb to be passed within the lane."""
    speed = _speed_limit(random)
    road = open_road(random, radius=(30.0, 120.0), lanes=(1,), parking=(0.0, 0.3), speed_limit=speed)
    scene = _Scene(random, road, speed)
    s = scene.start_s + float(random.uniform(35.0, 90.0))
    scene.draft.add_focus(_badly_parked(random, scene, s))
    scene.draft.parts += stream(
        random, path=scene.backward[0], first=60.0, last=240.0, speed=0.9 * speed, headway=(1.4, 2.8)
    )
    return scene.filled(random)


def parked_cars(random: _Random) -> Draft:
    """Cars parked along the way, several of them into the lane."""
    speed = _speed_limit(random)
    lined = 1.0 if random.random() < 0.5 else 0.0
    road = open_road(random, lanes=(1,), parking=(lined, 0.7), speed_limit=speed)
    scene = _Scene(random, road, speed)
    s = scene.start_s + float(random.uniform(25.0, 45.0))
    parts = []
    for _ in range(int(random.integers(2, 5))):
        parts.append(_badly_parked(random, scene, s))
        s += float(random.uniform(9.0, 40.0))
    scene.draft.add_focus(*parts)
    return scene.filled(random, filled=0.85, follows_ego=False)


def cyclist(random: _Random) -> Draft:
    """A cyclist at the right edge of the lane, to be passed with care."""
    speed = _speed_limit(random)
    scene = _Scene(random, open_road(random, parking=(0.3, 0.4), speed_limit=speed), speed, outer_lane=True)
    size = size_of(random, Category.BICYCLE)
    pace = float(random.uniform(3.2, 5.0))
    s = scene.start_s + float(random.uniform(22.0, 45.0))
    lateral = float(random.uniform(0.25, 0.7)) - size[1] / 2 - EGO_WIDTH / 2 - PASSING_CLEARANCE
    rider = Part(Category.BICYCLE, size, 0, s, lateral, pace, pace, appearance=appearance_of(random))
    scene.draft.add_focus(rider)
    return scene.filled(random, follows_ego=False, same_lane=False)


def braking_lead(random: _Random) -> Draft:
    """The vehicle ahead brakes hard, nearly or quite to a stop, and drives on after a while."""
    speed = _speed_limit(random)
    scene = _Scene(random, open_road(random, speed_limit=speed), speed)
    cue = Cue(
        ego_s=scene.start_s + float(random.uniform(18.0, 55.0)),
        duration=float(random.uniform(4.0, 7.5)),
        speed=float(random.choice([0.0, random.uniform(0.0, 0.4)])) * speed,
        deceleration=float(random.uniform(2.5, 5.5)),
    )
    gap = float(random.uniform(15.0, 26.0))
    scene.draft.add_focus(_lead(random, scene, gap=gap, cruise=speed * float(random.uniform(0.85, 1.0)), cue=cue))
    return scene.filled(random, same_lane=False)


def stopped_lead(random: _Random) -> Draft:
    """A vehicle stands in the lane and drives on a few seconds after the ego has come up to it."""
    return _standing_column(random, 1)


def stopped_queue(random: _Random) -> Draft:
    """Three to five vehicles stand in a queue, which sets off from its head."""
    return _standing_column(random, int(random.integers(3, 6)))


def cut_in(random: _Random) -> Draft:
    """A vehicle from the lane beside moves in before the ego and slows down."""
    speed = _speed_limit(random)
    scene = _Scene(random, open_road(random, lanes=(2,), speed_limit=speed), speed, slowest_start=CRUISING)
    cue = Cue(
        ego_s=scene.start_s + float(random.uniform(10.0, 45.0)),
        delay=float(random.uniform(0.8, 1.6)),
        duration=float(random.uniform(4.0, 6.0)),
        speed=float(random.uniform(0.2, 0.45)) * speed,
        deceleration=float(random.uniform(1.8, 2.8)),
        change_to=0,
    )
    pace = speed * float(random.uniform(0.82, 0.97))
    s = scene.start_s + float(random.uniform(15.0, 21.0))
    scene.draft.add_focus(vehicle(random, path=scene.beside, s=s, speed=pace, cruise=pace, cue=cue))
    return scene.filled(random, same_lane=False, beside_lane=False)


def crossing_pedestrian(random: _Random) -> Draft:
    """One to three pedestrians cross at a crosswalk, and would be before the ego if it drove on."""
    speed = _speed_limit(random)
    crossing = float(random.uniform(92.0, 108.0))
    road = open_road(random, speed_limit=speed, straight=crossing + 20.0, crossing_s=crossing)
    scene = _Scene(random, road, speed, slowest_start=CRUISING)
    section, reference = road.road.section, road.road.reference
    from_right = section.lanes == 2 or bool(random.random() < 0.6)
    ends = (section.right_edge - KERB - _ACROSS_FOOTPATH, section.left_edge + KERB)
    start, end = ends if from_right else ends[::-1]
    pace = float(random.uniform(1.25, 1.7))
    needed = abs(start - scene.offset) / pace  # seconds to the middle of the ego's lane
    arrival_s = max(needed, LEAST_NOTICE_S) + float(random.uniform(-0.2, 0.4))
    parts = []
    for k in range(int(random.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))):
        along = crossing + (0.0, 0.95, -0.95)[k] + float(random.uniform(-0.1, 0.1))
        walk = scene.draft.add_walk(crossing_walk(reference, along, start, end))
        cue = Cue(ego_s=along, arrival_s=arrival_s, duration=10.0)
        parts.append(pedestrian(random, path=walk, cue=cue, speed=pace * (1.0 - 0.05 * k)))
    scene.draft.add_focus(*parts)
    return scene.filled(random, clear=(crossing - 9.0, crossing + 5.0), same_lane=False, walkers=False)


def occluded_pedestrian(random: _Random) -> Draft:
    """A pedestrian steps out from behind a parked van."""
    speed = float(random.uniform(7.5, 11.0))
    where = float(random.uniform(75.0, 105.0))
    road = open_road(random, parking=(1.0, 0.4), speed_limit=speed, straight=where + 20.0)
    scene = _Scene(random, road, speed, outer_lane=True, slowest_start=CRUISING)
    section, reference = road.road.section, road.road.reference
    middle = section.right_edge + PARKING_WIDTH / 2
    size = (float(random.uniform(5.2, 6.4)), 2.1, float(random.uniform(2.3, 2.8)))
    van = Part(
        Category.TRUCK,
        size,
        pose=reference.pose(where - 1.1 - size[0] / 2, middle + 0.05),
        parked=True,
        appearance=appearance_of(random),
    )
    pace = float(random.uniform(1.4, 2.0))
    walk = scene.draft.add_walk(crossing_walk(reference, where, section.right_edge - KERB, section.left_edge + KERB))
    needed = (scene.offset - section.right_edge + KERB) / pace  # seconds to the middle of the ego's lane
    cue = Cue(ego_s=where, arrival_s=max(needed, LEAST_NOTICE_S) + float(random.uniform(0.0, 0.4)), duration=8.0)
    scene.draft.add_focus(pedestrian(random, path=walk, cue=cue, speed=pace), van)
    return scene.filled(random, filled=0.8, clear=(where - 1.0, where + 3.0), same_lane=False)


class _Scene:
    """An open road made ready for a family: the ego's lane and route, and the other lanes as paths."""

    def __init__(
        self, random: _Random, road: OpenRoad, speed: float, *, outer_lane: bool = False, slowest_start: float = 0.6
    ) -> None:
        section, lanes = road.road.section, road.road
        self.road, self.speed = road, speed
        self.lane = section.lanes - 1 if outer_lane else int(random.integers(section.lanes))
        self.offset = -section.lane_offset(self.lane)
        self.start_s = float(random.uniform(28.0, 36.0))
        goal = self.start_s + float(random.uniform(105.0, 125.0))
        ego = Route.along(road.map, (lanes.forward[self.lane],))
        start_speed = float(random.uniform(slowest_start, 1.0)) * min(speed, float(ego.speed[int(self.start_s)]))
        self.draft = Draft(road.map, ego, start_s=self.start_s, start_speed=start_speed, goal_s=goal)
        others = [lane for lane in lanes.forward if lane != lanes.forward[self.lane]]
        self.beside = -1
        if others:
            self.beside = self.draft.add_route(Route.along(road.map, (others[0],)))
            mine, theirs = Neighbours(left=self.beside), Neighbours(right=0)
            if self.lane == 0:
                mine, theirs = Neighbours(right=self.beside), Neighbours(left=0)
            self.draft.neighbours[0], self.draft.neighbours[self.beside] = mine, theirs
        self.backward = [self.draft.add_route(Route.along(road.map, (lane,))) for lane in lanes.backward]
        if len(self.backward) == 2:
            self.draft.neighbours[self.backward[0]] = Neighbours(right=self.backward[1])
            self.draft.neighbours[self.backward[1]] = Neighbours(left=self.backward[0])

    def filled(
        self,
        random: _Random,
        *,
        filled: float | None = None,
        clear: tuple[float, float] | None = None,
        same_lane: bool = True,
        beside_lane: bool = True,
        follows_ego: bool = True,
        walkers: bool = True,
    ) -> Draft:
        """Adds traffic, parked cars and people on the footpaths. clear: metres along that stay free of parked cars."""
        draft, speed = self.draft, self.speed
        section, reference = self.road.road.section, self.road.road.reference
        if same_lane and random.random() < 0.25 and not draft.focus_count:
            draft.parts.append(_lead(random, self, gap=float(random.uniform(28.0, 60.0)), cruise=speed))
        if follows_ego and random.random() < 0.3:
            s = self.start_s - float(random.uniform(13.0, 20.0))
            draft.parts.append(vehicle(random, path=0, s=s, speed=0.9 * draft.start_speed, cruise=speed))
        if self.beside >= 0 and beside_lane and random.random() < 0.7:
            draft.parts += stream(
                random, path=self.beside, first=5.0, last=180.0, speed=0.9 * speed, headway=(3.0, 8.0)
            )
        for path in self.backward:
            if random.random() < 0.65:
                draft.parts += stream(random, path=path, first=20.0, last=230.0, speed=speed, headway=(3.5, 9.0))
        share = float(random.uniform(0.2, 0.9)) if filled is None else filled
        for parking, edge, against in (
            (section.parking_right, section.right_edge + PARKING_WIDTH / 2, False),
            (section.parking_left, section.left_edge - PARKING_WIDTH / 2, True),
        ):
            if parking:
                for first, last in _without(clear, 10.0, 190.0):
                    draft.parts += parked_row(
                        random, reference, lateral=edge, first=first, last=last, filled=share, against=against
                    )
        if walkers:
            self._add_walkers(random, section.right_edge, section.left_edge, reference)
        return draft

    def _add_walkers(self, random: _Random, right: float, left: float, reference: Path) -> None:
        for kerb in (right, left):
            for side in (-KEEP_APART, KEEP_APART)[: int(random.integers(0, 3))]:
                against = bool(random.random() < 0.5)
                walk = self.draft.add_walk(footpath(reference, kerb, against=against))
                s = float(random.uniform(10.0, 200.0))
                self.draft.parts.append(pedestrian(random, path=walk, s=s, lateral=-side if against else side))


def _speed_limit(random: _Random) -> float:
    return float(random.uniform(8.0, 13.0))


def _lead(random: _Random, scene: _Scene, *, gap: float, cruise: float, cue: Cue | None = None) -> Part:
    """A vehicle ahead in the ego's lane, about as fast as the ego."""
    start = min(cruise, max(scene.draft.start_speed, 0.7 * cruise))
    return vehicle(random, path=0, s=scene.start_s + 5.5 + gap, speed=start, cruise=cruise, cue=cue)


def _badly_parked(random: _Random, scene: _Scene, s: float) -> Part:
    """A car half on the kerb that makes the ego move aside by 0.3 to 0.85 m."""
    size = size_of(random, Category.CAR)
    lateral = float(random.uniform(0.3, 0.85)) - size[1] / 2 - EGO_WIDTH / 2 - PASSING_CLEARANCE - 0.03
    pose = scene.draft.routes[0].path.pose(s, lateral)
    return Part(Category.CAR, size, pose=pose, parked=True, appearance=appearance_of(random))


def _standing_column(random: _Random, count: int) -> Draft:
    speed = _speed_limit(random)
    scene = _Scene(random, open_road(random, speed_limit=speed), speed)
    s = scene.start_s + float(random.uniform(42.0, 70.0))
    ego_s = s - float(random.uniform(13.0, 18.0))
    first_delay = float(random.uniform(1.5, 4.0))
    parts: list[Part] = []
    for k in range(count):
        cue = Cue(ego_s=ego_s, delay=first_delay + 1.3 * (count - 1 - k), waits=True)
        parts.append(vehicle(random, path=0, s=s, speed=0.0, cruise=speed, cue=cue))
        s += parts[-1].size[0] + float(random.uniform(2.6, 4.2))
    scene.draft.add_focus(*parts)
    return scene.filled(random, same_lane=False)


def _without(clear: tuple[float, float] | None, first: float, last: float) -> list[tuple[float, float]]:
    return [(first, last)] if clear is None else [(first, clear[0]), (clear[1], last)]
