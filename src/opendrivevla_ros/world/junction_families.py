"""Scenario families at a crossing or a T-junction: turn left, turn right, or go straight on, with traffic."""

import numpy as np

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.world.casting import Cue, Part
from opendrivevla_ros.world.crowd import KERB, crossing_walk, footpath, parked_row, pedestrian, vehicle
from opendrivevla_ros.world.draft import Draft
from opendrivevla_ros.world.road_builder import CROSSWALK_FROM, CROSSWALK_TO, PARKING_WIDTH
from opendrivevla_ros.world.route import Route
from opendrivevla_ros.world.state import RoadMap
from opendrivevla_ros.world.streets import Crossroads, crossroads

_Random = np.random.Generator
_MOST_ROUTES = 4


def junction_left(random: _Random) -> Draft:
    """A left turn, before which oncoming traffic has to be let through."""
    return _junction(random, Command.TURN_LEFT)


def junction_right(random: _Random) -> Draft:
    """A right turn."""
    return _junction(random, Command.TURN_RIGHT)


def junction_straight(random: _Random) -> Draft:
    """Straight over a crossing or past a side road."""
    return _junction(random, Command.KEEP_FORWARD)


def _junction(random: _Random, command: Command) -> Draft:
    speed = float(random.uniform(8.0, 12.0))
    scene = crossroads(random, command=command, speed_limit=speed)
    incoming = {
        Command.TURN_LEFT: scene.arms[0].backward[0],
        Command.TURN_RIGHT: scene.arms[0].backward[-1],
        Command.KEEP_FORWARD: scene.arms[0].backward[int(random.integers(len(scene.arms[0].backward)))],
    }[command]
    ego = next(
        route for route in _routes_from(scene.map, incoming) if route.junction and route.junction.turn is command
    )
    assert ego.junction is not None
    start = ego.junction.stop - float(random.uniform(42.0, 62.0))
    draft = Draft(
        scene.map,
        ego,
        start_s=start,
        start_speed=float(random.uniform(0.65, 1.0)) * speed,
        goal_s=ego.junction.exit + float(random.uniform(35.0, 48.0)),
    )
    draft.side_roads[0] = scene.side_road
    _add_traffic(random, draft, scene, speed)
    _add_parked(random, draft, scene)
    _add_people(random, draft, scene, command)
    return draft


def _routes_from(road: RoadMap, incoming: int) -> list[Route]:
    """Every way from an incoming lane across the junction."""
    return [
        Route.along(road, (incoming, lane, road.lanes[lane].successors[0])) for lane in road.lanes[incoming].successors
    ]


def _add_traffic(random: _Random, draft: Draft, scene: Crossroads, speed: float) -> None:
    """Traffic from the other arms, timed to come when the ego does, and perhaps someone ahead."""
    ways = []
    ego_road = {0, scene.turns.get(Command.KEEP_FORWARD, 0)}
    for arm, road in enumerate(scene.arms[1:], start=1):
        side = scene.side_road if arm in ego_road else not scene.side_road
        ways += [(route, side, arm) for lane in road.backward for route in _routes_from(scene.map, lane)]
    chosen = random.permutation(len(ways))[: int(random.integers(2, _MOST_ROUTES + 1))]
    opposite = scene.turns.get(Command.KEEP_FORWARD)
    must = [
        k
        for k, (route, _, arm) in enumerate(ways)
        if arm == opposite and route.junction and route.junction.turn is Command.KEEP_FORWARD
    ]
    traffic: list[Part] = []
    for k in sorted({*chosen.tolist(), *(must[:1] if random.random() < 0.8 else [])}):
        route, side, _ = ways[k]
        assert route.junction is not None
        path = draft.add_route(route, side_road=side)
        arrival = float(random.uniform(1.5, 9.0))
        for _ in range(int(random.integers(1, 4))):
            s = route.junction.stop - arrival * speed
            traffic.append(vehicle(random, path=path, s=s, speed=0.9 * speed, cruise=speed))
            arrival += float(random.uniform(1.8, 6.0))
    if random.random() < 0.25:
        s = draft.start_s + float(random.uniform(17.0, 28.0))
        traffic.insert(0, vehicle(random, path=0, s=s, speed=draft.start_speed, cruise=speed))
    draft.parts += traffic


def _add_parked(random: _Random, draft: Draft, scene: Crossroads) -> None:
    for arm in scene.arms:
        section = arm.section
        for parking, lateral, against in (
            (section.parking_right, section.right_edge + PARKING_WIDTH / 2, False),
            (section.parking_left, section.left_edge - PARKING_WIDTH / 2, True),
        ):
            if parking:
                draft.parts += parked_row(
                    random,
                    arm.reference,
                    lateral=lateral,
                    first=14.0,
                    last=75.0,
                    filled=float(random.uniform(0.2, 0.6)),
                    against=against,
                )


def _add_people(random: _Random, draft: Draft, scene: Crossroads, command: Command) -> None:
    """People on the footpaths, and sometimes one on the crosswalk that the ego leaves the junction by."""
    ego = draft.routes[0]
    assert ego.junction is not None
    if random.random() < 0.3:
        arm = scene.arms[scene.turns[command]]
        s = (CROSSWALK_FROM + CROSSWALK_TO) / 2 + float(random.uniform(-0.8, 0.8))
        ends = (arm.section.right_edge - KERB, arm.section.left_edge + KERB)
        start, end = ends if random.random() < 0.5 else ends[::-1]
        walk = draft.add_walk(crossing_walk(arm.reference, s, start, end))
        cue = Cue(ego_s=ego.junction.stop - float(random.uniform(2.0, 15.0)), duration=5.0)
        draft.parts.append(pedestrian(random, path=walk, cue=cue))
    for arm in scene.arms:
        for kerb in (arm.section.right_edge, arm.section.left_edge):
            if random.random() < 0.35:
                walk = draft.add_walk(footpath(arm.reference, kerb, against=False))
                draft.parts.append(pedestrian(random, path=walk, s=float(random.uniform(12.0, 60.0))))
