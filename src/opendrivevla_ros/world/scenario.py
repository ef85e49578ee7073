"""Scenarios: a street, who is in it, and where the ego is to go; complete from a family's name and a seed."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from opendrivevla_ros.world.casting import Neighbours, Part
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.road_queries import RoadQueries
from opendrivevla_ros.world.route import Route
from opendrivevla_ros.world.state import EGO_WIDTH, Appearance, Category, RoadMap
from opendrivevla_ros.world.traffic import Stage

EDGE = EGO_WIDTH / 2 + 0.75  # metres from the lane's middle: what stands beyond is passed without moving aside
_SPARE_SECONDS = 10.0
_JUNCTION_SECONDS = 20.0  # of giving way
_SLOWNESS = 1.6  # a route may take so many times as long as on a free road


@dataclass(frozen=True)
class Scenario:
    """What there is before the first step.

    routes: what can be driven, the ego's first; walks: what pedestrians follow; a part's path counts through both.
    neighbours, side_roads: one for each route. focus: ids of the actors the family is about. start_s, goal_s: where
    base_link starts and must arrive along the ego's route, metres. start_speed: m/s.
    """

    family: str
    seed: int
    road: RoadMap
    routes: tuple[Route, ...]
    walks: tuple[Path, ...]
    parts: tuple[Part, ...]
    neighbours: tuple[Neighbours, ...]
    side_roads: tuple[bool, ...]
    focus: tuple[int, ...]
    appearance: Appearance
    start_s: float
    start_speed: float
    goal_s: float

    @property
    def route(self) -> Route:
        """The ego's."""
        return self.routes[0]

    @cached_property
    def time_limit_s(self) -> float:
        """Seconds in which the goal must be reached: the free drive with slack, and whatever must be waited for."""
        route = self.route
        step = route.path.spacing
        first, last = int(self.start_s / step), int(self.goal_s / step)
        driving = float((step / np.maximum(route.speed[first:last], 1.0)).sum())
        slowest = min((self.parts[i].cruise for i in self.focus if self.parts[i].path == 0), default=np.inf)
        driving = max(driving, (self.goal_s - self.start_s) / max(slowest, 1.0))
        waiting = max((part.cue.delay + part.cue.duration for part in self.parts if part.cue), default=0.0)
        waiting += _JUNCTION_SECONDS if route.junction else 0.0
        return _SPARE_SECONDS + _SLOWNESS * driving + waiting

    @cached_property
    def stage(self) -> Stage:
        """The parts and paths in arrays."""
        return Stage(self.routes, self.walks, self.parts, self.neighbours, self.side_roads)

    @cached_property
    def queries(self) -> RoadQueries:
        """Geometric questions about the road."""
        return RoadQueries(self.road)

    @cached_property
    def edge_users(self) -> tuple[int, ...]:
        """Ids of those who may stand or ride at the edge of the ego's lane: cyclists and badly parked vehicles."""
        found = []
        for i, part in enumerate(self.parts):
            if part.category is Category.BICYCLE:
                found.append(i)
            elif part.pose is not None and part.parked:
                s, lateral = self.route.path.project([part.pose[:2]])
                if 0.0 <= s[0] <= self.route.path.length and abs(lateral[0]) - part.size[1] / 2 < EDGE:
                    found.append(i)
        return tuple(found)
