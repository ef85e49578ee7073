"""Who goes first at a junction.

Every path has a rank (straight on, then right, then left turns; side roads after the main road). A vehicle waits at
its stop line for all who are already crossing, and for those of higher rank who would arrive before it has cleared.
Of two who are already crossing, the one who comes later to where their ways meet lets the other pass.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.route import Route

CONFLICT_METRES = 2.8  # centrelines closer than this cannot be driven at the same time
COMMITTED_BRAKING = 3.0  # m/s^2: who would have to brake harder for the stop line no longer stops
TIME_MARGIN = 1.2  # s between one vehicle's leaving and another's arrival
_OVER_THE_LINE = 1.0  # metres past the stop line after which nobody waits any more
_LEAST_SPEED = 4.0  # m/s assumed of a vehicle that stands and may start
_TURN_RANK = {Command.KEEP_FORWARD: 0, Command.TURN_RIGHT: 1, Command.TURN_LEFT: 2}


class _Crossing(NamedTuple):
    """A vehicle near a junction. front, rear: metres along its path; gap: from its front to the stop line."""

    id: int
    path: int
    front: float
    rear: float
    speed: float
    gap: float
    committed: bool


class RightOfWay:
    """The conflicts between the paths of one scenario, found once."""

    def __init__(self, routes: Sequence[Route], side_roads: Sequence[bool]) -> None:
        self._rank = [
            (10 if side else 0) + (_TURN_RANK[route.junction.turn] if route.junction else 0)
            for route, side in zip(routes, side_roads, strict=True)
        ]
        self._stop = [route.junction.stop if route.junction else math.inf for route in routes]
        self._conflicts: dict[tuple[int, int], tuple[float, float, float, float]] = {}
        for p, first in enumerate(routes):
            for q, second in enumerate(routes):
                if p != q and first.junction and second.junction and first.lanes[0] != second.lanes[0]:
                    zone = _conflict(first, second)
                    if zone is not None:
                        self._conflicts[p, q] = zone
        self.exists = bool(self._conflicts)

    def stop_gaps(self, path: Array, s: Array, speed: Array, length: Array) -> dict[int, float]:
        """Metres from the front bumper to where a vehicle must wait, by its index, for those who must.

        path, s, speed, length: [A] of all vehicles; path is -1 for whoever is not on one.
        """
        near = []
        for j, p in enumerate(path.tolist()):
            if 0 <= p < len(self._stop) and self._stop[p] < math.inf:
                half, v = float(length[j]) / 2, float(speed[j])
                front = float(s[j]) + half
                gap = self._stop[p] - front
                if -45.0 < gap < 70.0:
                    committed = gap < -_OVER_THE_LINE or (v > 2.0 and gap < v * v / (2 * COMMITTED_BRAKING))
                    near.append(_Crossing(j, p, front, front - 2 * half, v, gap, committed))
        waiting = {}
        for mine in near:
            gap = math.inf
            for other in near:
                zone = self._conflicts.get((mine.path, other.path))
                if zone is not None and other.rear <= zone[3]:
                    gap = min(gap, self._gap(mine, other, zone))
            if gap < math.inf:
                waiting[mine.id] = gap
        return waiting

    def _gap(self, mine: _Crossing, other: _Crossing, zone: tuple[float, float, float, float]) -> float:
        """Where `mine` must stop because of `other`: metres ahead of its front bumper, infinite where it need not."""
        from_mine, to_mine, from_other, to_other = zone
        arrival = max(0.0, from_mine - mine.front) / max(mine.speed, _LEAST_SPEED)
        leaving = (to_other - other.rear) / max(other.speed, 1.0)
        if mine.committed:
            if not other.committed or mine.front > from_mine - 0.2 or arrival > leaving + 0.5:
                return math.inf
            theirs = max(0.0, from_other - other.front) / max(other.speed, _LEAST_SPEED)
            return from_mine - mine.front - 0.3 if (theirs, other.id) < (arrival, mine.id) else math.inf
        if other.committed:
            return mine.gap if arrival < leaving + TIME_MARGIN else math.inf
        if (self._rank[other.path], other.id) > (self._rank[mine.path], mine.id):
            return math.inf
        other_arrival = max(0.0, from_other - other.front) / max(other.speed, _LEAST_SPEED)
        clearing = _travel_time(to_mine - mine.rear, mine.speed)
        return mine.gap if clearing + TIME_MARGIN > other_arrival else math.inf


def _travel_time(distance: float, speed: float) -> float:
    """Seconds to drive `distance` metres from `speed`, gathering 1.5 m/s^2 up to at least 5 m/s."""
    cruise = max(speed, 5.0)
    gathering = (cruise**2 - speed**2) / 3.0
    if distance <= gathering:
        return (np.sqrt(speed**2 + 3.0 * max(distance, 0.0)) - speed) / 1.5
    return (cruise - speed) / 1.5 + (distance - gathering) / cruise


def _conflict(first: Route, second: Route) -> tuple[float, float, float, float] | None:
    """Where two routes come too close inside a junction: from and to, metres along each; None where they do not."""
    spans = []
    for route in (first, second):
        assert route.junction is not None
        step = route.path.spacing
        low, high = int(route.junction.entry / step), int(np.ceil(route.junction.exit / step)) + 1
        spans.append((low, route.path.points[low:high], step))
    (low_1, points_1, step_1), (low_2, points_2, step_2) = spans
    close = np.hypot(*(points_1[:, None] - points_2[None]).transpose(2, 0, 1)) < CONFLICT_METRES
    if not close.any():
        return None
    one, two = np.flatnonzero(close.any(axis=1)) + low_1, np.flatnonzero(close.any(axis=0)) + low_2
    return one[0] * step_1, one[-1] * step_1, two[0] * step_2, two[-1] * step_2
