"""Builds a road map: roads from reference lines, and junctions that join the mouths of roads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.core.geometry import Array, wrap_angle
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.road_shapes import connection
from opendrivevla_ros.world.state import Divider, Lane, Marking, RoadMap

CROSSWALK_FROM, CROSSWALK_TO = 1.0, 4.0  # metres outward from the mouth of a junction
STOP_LINE_AT = 5.0
PARKING_WIDTH = 2.3


@dataclass(frozen=True)
class CrossSection:
    """The width of a road. lanes: one or two each way. parking_right, parking_left: seen along the reference line."""

    lanes: int = 1
    lane_width: float = 3.5
    parking_right: bool = False
    parking_left: bool = False

    @property
    def carriageway(self) -> float:
        """Metres from the reference line to the outer edge of the lanes."""
        return self.lanes * self.lane_width

    @property
    def right_edge(self) -> float:
        """Lateral offset of the right kerb from the reference line, metres (negative)."""
        return -self.carriageway - PARKING_WIDTH * self.parking_right

    @property
    def left_edge(self) -> float:
        return self.carriageway + PARKING_WIDTH * self.parking_left

    def lane_offset(self, index: int) -> float:
        """Metres from the reference line to the middle of the lane with `index` counted from the middle outwards."""
        return (index + 0.5) * self.lane_width


@dataclass(frozen=True)
class Road:
    """A built road: ids of its lanes along the reference line and against it, each from the middle outwards."""

    reference: Path
    section: CrossSection
    forward: tuple[int, ...]
    backward: tuple[int, ...]


class RoadMapBuilder:
    """Collects roads and junctions; `build` gives the map."""

    def __init__(self, speed_limit: float) -> None:
        self._speed_limit = speed_limit
        self._lanes: list[Lane] = []
        self._roads = 0
        self._dividers: list[Divider] = []
        self._boundaries: list[Array] = []
        self._crosswalks: list[Array] = []
        self._stop_lines: list[Array] = []
        self._drivable: list[Array] = []
        self._junctions: list[Array] = []
        self._parking: list[Array] = []

    def add_road(self, reference: Array, section: CrossSection) -> Road:
        """A road along the reference line [N, 2]: lanes keep to the right of it in both directions."""
        path = Path.through(reference)
        number, self._roads = self._roads, self._roads + 1
        forward = self._add_lanes(
            number, [path.offset(-section.lane_offset(k)) for k in range(section.lanes)], section
        )
        backward = self._add_lanes(
            number, [path.offset(section.lane_offset(k))[::-1] for k in range(section.lanes)], section
        )
        right, left = path.offset(section.right_edge), path.offset(section.left_edge)[::-1]
        self._boundaries += [right, left]
        self._drivable.append(np.concatenate([right, left]))
        middle = Marking.DASHED_YELLOW if section.lanes == 1 else Marking.SOLID_YELLOW
        self._dividers.append(Divider(path.points, middle))
        for side in (-1, 1):
            for k in range(1, section.lanes):
                self._dividers.append(Divider(path.offset(side * k * section.lane_width), Marking.DASHED_WHITE))
        for wanted, side, edge in (
            (section.parking_right, -1, right),
            (section.parking_left, 1, left[::-1]),
        ):
            if wanted:
                inner = path.offset(side * section.carriageway)
                self._dividers.append(Divider(inner, Marking.SOLID_WHITE))
                self._parking.append(np.concatenate([inner, edge[::-1]]))
        return Road(path, section, forward, backward)

    def add_crossing(self, road: Road, start: float, end: float) -> None:
        """A crosswalk over the whole road from `start` to `end`, metres along its reference line."""
        section = road.section
        ends = [road.reference.pose(s, e) for s in (start, end) for e in (section.right_edge, section.left_edge)]
        self._crosswalks.append(np.array([ends[0][:2], ends[2][:2], ends[3][:2], ends[1][:2]]))

    def add_stop_line(self, road: Road, s: float, *, along: bool) -> None:
        """A stop line at `s` over the lanes of one direction: those along the reference line, or those against it."""
        outer = -road.section.carriageway if along else road.section.carriageway
        self._stop_lines.append(np.array([road.reference.pose(s, 0.0)[:2], road.reference.pose(s, outer)[:2]]))

    def add_junction(self, arms: Sequence[Road]) -> None:
        """Joins the beginnings of roads that lead outward, given counter-clockwise, with crosswalks and stop lines."""
        outline = []
        for arm, after in zip(arms, [*arms[1:], arms[0]], strict=True):
            heading, next_heading = arm.reference.heading[0], after.reference.heading[0]
            left = np.array(arm.reference.pose(0.0, arm.section.left_edge)[:2])
            right = np.array(after.reference.pose(0.0, after.section.right_edge)[:2])
            kerb = connection(left, heading + np.pi, right, next_heading)
            self._boundaries.append(kerb)
            outline.append(kerb)
        self._junctions.append(np.concatenate(outline))
        self._drivable.append(self._junctions[-1])
        number, self._roads = self._roads, self._roads + 1
        for arm in arms:
            self.add_crossing(arm, CROSSWALK_FROM, CROSSWALK_TO)
            self.add_stop_line(arm, STOP_LINE_AT, along=False)
            for other in arms:
                if other is not arm:
                    self._connect(number, arm, other)

    def build(self) -> RoadMap:
        """The map, with successors and predecessors filled in."""
        return RoadMap(
            tuple(self._lanes),
            tuple(self._dividers),
            tuple(self._boundaries),
            tuple(self._crosswalks),
            tuple(self._stop_lines),
            tuple(self._drivable),
            tuple(self._junctions),
            tuple(self._parking),
        )

    def _add_lanes(self, road: int, centrelines: list[Array], section: CrossSection) -> tuple[int, ...]:
        first = len(self._lanes)
        ids = tuple(range(first, first + len(centrelines)))
        for k, line in enumerate(centrelines):
            left = ids[k - 1] if k > 0 else None
            right = ids[k + 1] if k + 1 < len(ids) else None
            self._lanes.append(Lane(ids[k], road, line, section.lane_width, self._speed_limit, left=left, right=right))
        return ids

    def _connect(self, road: int, arm: Road, other: Road) -> None:
        """Lanes across a junction: left turns from the innermost lane, right turns from the outermost."""
        turn = float(wrap_angle(other.reference.heading[0] - arm.reference.heading[0] - np.pi))
        incoming, outgoing = arm.backward, other.forward
        if abs(turn) < np.pi / 4:
            command, pairs = Command.KEEP_FORWARD, list(zip(incoming, outgoing, strict=False))
        elif turn > 0:
            command, pairs = Command.TURN_LEFT, [(incoming[0], outgoing[0])]
        else:
            command, pairs = Command.TURN_RIGHT, [(incoming[-1], outgoing[-1])]
        for source, target in pairs:
            before, after = self._lanes[source], self._lanes[target]
            line = connection(
                before.centreline[-1],
                float(arm.reference.heading[0]) + np.pi,
                after.centreline[0],
                float(other.reference.heading[0]),
            )
            lane = len(self._lanes)
            self._lanes.append(
                Lane(
                    lane,
                    road,
                    line,
                    min(before.width, after.width),
                    self._speed_limit,
                    turn=command,
                    successors=(target,),
                    predecessors=(source,),
                )
            )
            self._lanes[source] = replace(before, successors=(*before.successors, lane))
            self._lanes[target] = replace(after, predecessors=(*after.predecessors, lane))
