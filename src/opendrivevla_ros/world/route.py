"""The way through the map: a chain of lanes, its path, the navigation commands along it, and a comfortable speed."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.road_builder import STOP_LINE_AT
from opendrivevla_ros.world.state import RoadMap

COMMAND_AHEAD = 60.0  # metres before a junction at which its command is given; drivers slow down for a turn from 50
LATERAL_ACCELERATION = 2.0  # m/s^2 that drivers accept in bends
APPROACH_DECELERATION = 1.3  # m/s^2 at which they slow down for a bend


@dataclass(frozen=True)
class Junction:
    """Where a route crosses a junction, metres along it: stop line, mouth and exit; what it does there."""

    stop: float
    entry: float
    exit: float
    turn: Command


@dataclass(frozen=True)
class Route:
    """lanes: ids, end to end. speed: [N] m/s, the greatest comfortable speed at each sample of the path."""

    lanes: tuple[int, ...]
    path: Path
    speed: Array
    junction: Junction | None

    @classmethod
    def along(cls, road: RoadMap, lanes: tuple[int, ...]) -> "Route":
        """The route over `lanes`; raises ValueError where one does not follow on the other."""
        for before, after in pairwise(lanes):
            if after not in road.lanes[before].successors:
                raise ValueError(
                    f"lane {after} does not follow lane {before}; choose one of {road.lanes[before].successors}"
                )
        path = Path.through(np.concatenate([road.lanes[lane].centreline for lane in lanes]))
        junction = None
        for lane in lanes:
            turn = road.lanes[lane].turn
            if turn is not None:
                ends, _ = path.project(road.lanes[lane].centreline[[0, -1]])
                junction = Junction(float(ends[0]) - STOP_LINE_AT, float(ends[0]), float(ends[1]), turn)
        return cls(lanes, path, comfortable_speed(path, road.lanes[lanes[0]].speed_limit), junction)

    def command_at(self, s: float) -> Command:
        """The navigation command `s` metres along: a turn is announced before its junction and holds to its exit."""
        if self.junction is not None and self.junction.entry - COMMAND_AHEAD <= s <= self.junction.exit:
            return self.junction.turn
        return Command.KEEP_FORWARD


def comfortable_speed(path: Path, limit: float) -> Array:
    """[N] m/s along a path: the limit, less in bends, with a comfortable approach to them."""
    speed = np.minimum(limit, np.sqrt(LATERAL_ACCELERATION / np.maximum(np.abs(path.curvature), 1e-4)))
    squared = speed**2
    # v^2 may fall by 2 a ds from sample to sample: a running minimum from the end, sheared by that slope.
    slope = 2 * APPROACH_DECELERATION * path.spacing * np.arange(len(squared))
    return np.sqrt(np.minimum.accumulate((squared + slope)[::-1])[::-1] - slope)
