"""A scenario while it is being written: routes, walks and parts are added, then it is made fast."""

from typing import TypeVar

import numpy as np

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.casting import Neighbours, Part
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.route import Route
from opendrivevla_ros.world.scenario import Scenario
from opendrivevla_ros.world.state import EGO_LENGTH, EGO_WIDTH, Appearance, RoadMap, TimeOfDay, Weather

_Choice = TypeVar("_Choice")
_ROOM_AHEAD, _ROOM_BESIDE = 1.2, 0.15  # metres added to length and width when places are given out
_TIMES = ((TimeOfDay.DAY, 0.65), (TimeOfDay.DUSK, 0.2), (TimeOfDay.NIGHT, 0.15))
_WEATHERS = ((Weather.CLEAR, 0.5), (Weather.CLOUDY, 0.3), (Weather.RAIN, 0.12), (Weather.FOG, 0.08))


class Draft:
    """Collects what a family needs. The parts added first keep their place when two want the same."""

    def __init__(self, road: RoadMap, ego: Route, *, start_s: float, start_speed: float, goal_s: float) -> None:
        self.road = road
        self.routes, self.walks = [ego], list[Path]()
        self.neighbours, self.side_roads = [Neighbours()], [False]
        self.parts, self.focus_count = list[Part](), 0
        self.start_s, self.start_speed, self.goal_s = start_s, start_speed, goal_s

    def add_route(self, route: Route, *, side_road: bool = False) -> int:
        """Adds a route before any walk is there; its index."""
        if self.walks:
            raise ValueError("routes must be added before walks, whose numbers follow theirs")
        self.routes.append(route)
        self.neighbours.append(Neighbours())
        self.side_roads.append(side_road)
        return len(self.routes) - 1

    def add_walk(self, walk: Path) -> int:
        """Adds a pedestrian's path; its index among all paths."""
        self.walks.append(walk)
        return len(self.routes) + len(self.walks) - 1

    def add_focus(self, *parts: Part) -> None:
        """Adds the parts that the family is about; before all others."""
        if len(self.parts) != self.focus_count:
            raise ValueError("the parts that a family is about come before all others")
        self.parts.extend(parts)
        self.focus_count = len(self.parts)

    def finish(self, family: str, seed: int, random: np.random.Generator) -> Scenario:
        """The scenario, without those parts that stand in the way of earlier ones or of the ego."""
        kept = self._without_overlaps()
        appearance = Appearance(int(random.integers(2**31)), _pick(random, _TIMES), _pick(random, _WEATHERS))
        return Scenario(
            family,
            seed,
            self.road,
            tuple(self.routes),
            tuple(self.walks),
            tuple(self.parts[i] for i in kept),
            tuple(self.neighbours),
            tuple(self.side_roads),
            tuple(range(self.focus_count)),
            appearance,
            self.start_s,
            self.start_speed,
            self.goal_s,
        )

    def _without_overlaps(self) -> list[int]:
        ego_x, ego_y, ego_yaw = self.routes[0].path.pose(self.start_s + 1.4)
        taken: list[Array] = [np.array([ego_x, ego_y, ego_yaw, EGO_LENGTH + 4.0, EGO_WIDTH + 0.6])]
        kept, paths = [], [*(route.path for route in self.routes), *self.walks]
        for i, part in enumerate(self.parts):
            if part.pose is not None:
                pose = part.pose
            else:
                assert part.path is not None
                if not 0.0 <= part.s <= paths[part.path].length:
                    continue
                pose = paths[part.path].pose(part.s, part.lateral)
            box = np.array([*pose, part.size[0] + _ROOM_AHEAD, part.size[1] + _ROOM_BESIDE])
            if i < self.focus_count or not overlaps(box, np.stack(taken)).any():
                taken.append(box)
                kept.append(i)
        return kept


def _pick(random: np.random.Generator, choices: tuple[tuple[_Choice, float], ...]) -> _Choice:
    values, shares = zip(*choices, strict=True)
    return values[int(random.choice(len(values), p=shares))]
