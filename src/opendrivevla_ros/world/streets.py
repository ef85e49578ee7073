"""Streets drawn from a random generator: an open road, or a junction of three or four arms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.world.road_builder import CrossSection, Road, RoadMapBuilder
from opendrivevla_ros.world.road_shapes import MAX_RADIUS, MIN_RADIUS, Piece, reference_line
from opendrivevla_ros.world.state import RoadMap

_TWO_LANE_RADIUS = 35.0  # metres: a road of two lanes each way has no tighter bends
_SHORTEST, _LONGEST = 0.35, 1.9  # radians of a bend
_LONGEST_BEND = 110.0  # metres


@dataclass(frozen=True)
class OpenRoad:
    """A road without junctions: its map, the road, and where a crosswalk lies along it (None: there is none)."""

    map: RoadMap
    road: Road
    crossing_s: float | None


@dataclass(frozen=True)
class Crossroads:
    """A junction. arms lead outward: arms[0] is where the ego comes from; `turns` says which arm lies where.

    side_road: whether the ego comes from the lesser road and so gives way.
    """

    map: RoadMap
    arms: tuple[Road, ...]
    turns: dict[Command, int]
    side_road: bool


def open_road(
    random: np.random.Generator,
    *,
    radius: tuple[float, float] = (60.0, MAX_RADIUS),
    lanes: Sequence[int] = (1, 2),
    parking: tuple[float, float] = (0.6, 0.4),
    speed_limit: float,
    straight: float | None = None,
    crossing_s: float | None = None,
) -> OpenRoad:
    """A road of about 280 m: a straight, a bend with a radius in metres from the range, and a way out.

    parking: the chances of a parking lane on the right and on the left. straight: metres before the bend.
    """
    lower, upper = max(radius[0], MIN_RADIUS), min(radius[1], MAX_RADIUS)
    bend = float(np.exp(random.uniform(np.log(lower), np.log(upper))))
    section = CrossSection(
        int(random.choice([n for n in lanes if n == 1 or bend >= _TWO_LANE_RADIUS])),
        float(random.uniform(3.3, 3.7)),
        bool(random.random() < parking[0]),
        bool(random.random() < parking[1]),
    )
    angle = float(random.choice([-1, 1]) * random.uniform(_SHORTEST, min(_LONGEST, _LONGEST_BEND / bend)))
    first = float(random.uniform(45.0, 75.0)) if straight is None else straight
    pieces = [Piece(first), Piece.bend(bend, angle), Piece(max(60.0, 270.0 - first - bend * abs(angle)))]
    builder = RoadMapBuilder(speed_limit)
    start = (*random.uniform(-20.0, 20.0, 2).tolist(), float(random.uniform(-np.pi, np.pi)))
    road = builder.add_road(reference_line(start, pieces), section)
    if crossing_s is not None:
        builder.add_crossing(road, crossing_s - 1.5, crossing_s + 1.5)
        builder.add_stop_line(road, crossing_s - 2.7, along=True)
        builder.add_stop_line(road, crossing_s + 2.7, along=False)
    return OpenRoad(builder.build(), road, crossing_s)


def crossroads(random: np.random.Generator, *, command: Command, speed_limit: float) -> Crossroads:
    """A crossing or a T-junction at which `command` can be obeyed."""
    directions = {Command.TURN_RIGHT: -np.pi / 2, Command.KEEP_FORWARD: 0.0, Command.TURN_LEFT: np.pi / 2}
    if random.random() < 0.45:
        directions.pop(list(directions)[int(random.choice([k for k, c in enumerate(directions) if c != command]))])
    through = Command.KEEP_FORWARD in directions
    sideways = Command.TURN_LEFT in directions and Command.TURN_RIGHT in directions
    side_road = not through or (sideways and bool(random.random() < 0.4))
    main = _section(random, two_lanes=0.4)
    lesser = _section(random, two_lanes=0.1)
    ego_section, cross_section = (lesser, main) if side_road else (main, lesser)
    corner = float(random.uniform(4.5, 8.0))
    skew = float(random.uniform(-0.18, 0.18))
    base = float(random.uniform(-np.pi, np.pi))
    builder = RoadMapBuilder(speed_limit)
    arms: list[Road] = []
    turns: dict[Command, int] = {}
    ways: list[tuple[Command | None, float]] = [(None, -np.pi), *directions.items()]
    for way, angle in ways:
        on_ego_road = way in (None, Command.KEEP_FORWARD)
        own, other = (ego_section, cross_section) if on_ego_road else (cross_section, ego_section)
        mouth = max(other.left_edge, -other.right_edge) + corner + 6.0 * abs(skew)
        heading = base + angle + (0.0 if on_ego_road else skew)
        bend = Piece.bend(float(random.uniform(70.0, MAX_RADIUS)), float(random.uniform(-0.3, 0.3)))
        pieces = [Piece(float(random.uniform(35.0, 60.0))), bend]
        pieces.append(Piece(max(20.0, 125.0 - sum(piece.length for piece in pieces))))
        start = (mouth * float(np.cos(heading)), mouth * float(np.sin(heading)), heading)
        if way is not None:
            turns[way] = len(arms)
        arms.append(builder.add_road(reference_line(start, pieces), own))
    builder.add_junction(arms)
    return Crossroads(builder.build(), tuple(arms), turns, side_road)


def _section(random: np.random.Generator, *, two_lanes: float) -> CrossSection:
    parking = bool(random.random() < 0.35)
    lanes = 2 if random.random() < two_lanes else 1
    return CrossSection(lanes, float(random.uniform(3.3, 3.7)), parking, parking)
