"""Everyone but the ego: car following, lane changes, cues, junctions and pedestrians, over arrays of actors.

The ego takes part as the last row, so that the others see it; only its own rules move it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.car_following import ACCELERATION, EMERGENCY_BRAKING, follow, free_road, stop_at
from opendrivevla_ros.world.casting import Neighbours, Part
from opendrivevla_ros.world.path import Path, PathBundle
from opendrivevla_ros.world.right_of_way import RightOfWay
from opendrivevla_ros.world.route import Route
from opendrivevla_ros.world.state import EGO_LENGTH, EGO_WIDTH, Actor, Attribute, Category, Ego

LANE_CHANGE_S = 3.0
LANE_CHANGE_GAIN = 1.5  # m/s that the leader must be slower than wished before a gap is looked for
CORRIDOR_MARGIN = 0.3  # metres beside the body that a driver wants free
PEDESTRIAN_FORESIGHT_S = 2.5
VEHICLE_FORESIGHT_S = 1.0
SIGHT_METRES = 80.0
_PAUSE_METRES = 1.0  # a pedestrian waits for whatever is closer than this ahead
_GONE = 1.0e5  # where those who left the map are kept


class Stage:
    """What never changes over a scenario: its paths and parts, in arrays. Shared by all copies of a world."""

    def __init__(
        self,
        routes: Sequence[Route],
        walks: Sequence[Path],
        parts: Sequence[Part],
        neighbours: Sequence[Neighbours],
        side_roads: Sequence[bool],
    ) -> None:
        self.parts = tuple(parts)
        self.neighbours = tuple(neighbours)
        self.drives = len(routes)
        self.bundle = PathBundle([route.path for route in routes] + list(walks))
        longest = max(len(route.speed) for route in routes)
        self._speed = np.stack([np.pad(route.speed, (0, longest - len(route.speed)), mode="edge") for route in routes])
        self.right_of_way = RightOfWay(routes, side_roads)
        self.length = np.array([part.size[0] for part in parts] + [EGO_LENGTH])
        self.width = np.array([part.size[1] for part in parts] + [EGO_WIDTH])
        self.cruise = np.array([part.cruise for part in parts] + [0.0])
        walking = [part.category is Category.PEDESTRIAN for part in parts] + [False]
        self.pedestrian = np.array(walking)
        driven = [part.path is not None and part.category is not Category.PEDESTRIAN for part in parts]
        self.drivers = np.flatnonzero(driven)
        self.walkers = [
            i for i, part in enumerate(parts) if part.category is Category.PEDESTRIAN and part.path is not None
        ]
        self.cued = [i for i, part in enumerate(parts) if part.cue is not None]
        self.changers = [i for i, part in enumerate(parts) if part.changes_lane]

    def speed_at(self, path: NDArray[np.intp], s: Array) -> Array:
        """The comfortable speed [M] on given paths at `s` [M] metres."""
        sample = np.rint(s / self.bundle.spacing[path]).astype(np.intp)
        sample = np.minimum(np.maximum(sample, 0), self._speed.shape[1] - 1)
        return self._speed[path, sample]


class View:
    """Where everyone is on every drivable path, at one instant: all [P, A], the ego last."""

    def __init__(self, stage: Stage, x: Array, y: Array, yaw: Array, speed: Array) -> None:
        self.s, self.lateral, heading = stage.bundle.project(np.column_stack([x, y]), paths=stage.drives)
        relative = yaw - heading
        cosine, sine = np.cos(relative), np.sin(relative)
        along, across = np.abs(cosine), np.abs(sine)
        self.half_length = (along * stage.length + across * stage.width) / 2
        self.half_width = (across * stage.length + along * stage.width) / 2
        self.speed_along = speed * cosine
        self.speed_across = speed * sine
        same_way = np.where(cosine > 0.8, VEHICLE_FORESIGHT_S, 0.0)
        foresight = np.where(stage.pedestrian, PEDESTRIAN_FORESIGHT_S, same_way)
        later = self.lateral + self.speed_across * foresight
        self.rightmost = np.minimum(self.lateral, later) - self.half_width
        self.leftmost = np.maximum(self.lateral, later) + self.half_width


class Traffic:
    """All actors of one world, in arrays [A + 1] whose last row is the ego."""

    def __init__(self, stage: Stage, ego: Ego) -> None:
        parts, count = stage.parts, len(stage.parts) + 1
        self.stage = stage
        self.path = np.array([-1 if part.path is None else part.path for part in parts] + [0], dtype=np.intp)
        self.s = np.array([part.s for part in parts] + [0.0])
        self.rest = np.array([part.lateral for part in parts] + [0.0])  # lateral place that it keeps to
        self.change_from = np.zeros(count)  # lateral distance at which a lane change began
        self.change_time = np.full(count, LANE_CHANGE_S)  # seconds since it began
        self.speed = np.array([part.speed for part in parts] + [0.0])
        self.acceleration = np.zeros(count)
        self.yaw_rate = np.zeros(count)
        self.walked = np.zeros(count)
        self.cue_time = np.full(count, -1.0)  # seconds since the cue was given; negative before
        self.present = np.ones(count, dtype=bool)
        self.x, self.y, self.yaw = np.zeros(count), np.zeros(count), np.zeros(count)
        for i, part in enumerate(parts):
            if part.pose is not None:
                self.x[i], self.y[i], self.yaw[i] = part.pose
        self._ticks = 0
        self._view: View | None = None
        self._stop_gaps: dict[int, float] | None = None
        self._place(np.flatnonzero(self.path[:-1] >= 0))
        self.set_ego(ego)

    def copy(self) -> "Traffic":
        """An independent copy; the stage is shared."""
        twin = object.__new__(Traffic)
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value.copy() if isinstance(value, np.ndarray) else value
        return twin

    def set_ego(self, ego: Ego) -> None:
        """Moves the ego's row to where it is now."""
        self.x[-1], self.y[-1] = ego.centre
        self.yaw[-1], self.speed[-1], self.acceleration[-1] = ego.yaw, ego.speed, ego.acceleration
        self._view = self._stop_gaps = None

    @property
    def view(self) -> View:
        """Everyone on every path, found once an instant."""
        if self._view is None:
            self._view = View(self.stage, self.x, self.y, self.yaw, self.speed)
        return self._view

    @property
    def stop_gaps(self) -> dict[int, float]:
        """Metres to where a vehicle must wait at a junction, by id, for those who must; the ego is len(parts)."""
        if self._stop_gaps is None:
            rules = self.stage.right_of_way
            if rules.exists:
                self.s[-1] = self.view.s[0, -1]
                path = np.where(self.present & ~self.stage.pedestrian, self.path, -1)
                self._stop_gaps = rules.stop_gaps(path, self.s, self.speed, self.stage.length)
            else:
                self._stop_gaps = {}
        return self._stop_gaps

    def step(self, dt: float) -> None:
        """Moves everyone but the ego by `dt` seconds, as seen from before the step."""
        stage, view = self.stage, self.view
        self._give_cues(float(view.s[0, -1]), float(self.speed[-1]), dt)
        drivers = stage.drivers[self.present[stage.drivers]]
        if len(drivers):
            self._drive(drivers, dt)
        for i in stage.walkers:
            self._walk(i, dt)
        moved = np.concatenate([drivers, np.array(stage.walkers, dtype=np.intp)])
        if len(moved):
            self._place(moved)
        gone = drivers[self.s[drivers] > stage.bundle.length[self.path[drivers]] - 1.0]
        self.present[gone] = False
        self.x[gone], self.speed[gone] = _GONE + 1000.0 * gone, 0.0
        self._ticks += 1
        self._view = self._stop_gaps = None

    def boxes(self) -> Array:
        """[A, 5] x, y, yaw, length, width of all actors, the ego left out; who left the map is far away."""
        columns = (self.x, self.y, self.yaw, self.stage.length, self.stage.width)
        return np.column_stack([column[:-1] for column in columns])

    def actors(self) -> tuple[Actor, ...]:
        """A snapshot of all who are present."""
        return tuple(self._actor(i) for i in np.flatnonzero(self.present[:-1]).tolist())

    def _give_cues(self, ego_s: float, ego_speed: float, dt: float) -> None:
        for i in self.stage.cued:
            cue = self.stage.parts[i].cue
            assert cue is not None
            if self.cue_time[i] >= 0.0:
                self.cue_time[i] += dt
            elif ego_s + ego_speed * cue.arrival_s >= cue.ego_s:
                self.cue_time[i] = 0.0
                if cue.change_to is not None:
                    self._change_lane(i, cue.change_to)

    def _drive(self, drivers: NDArray[np.intp], dt: float) -> None:
        stage = self.stage
        path, s, speed = self.path[drivers], self.s[drivers], self.speed[drivers]
        desired = np.minimum(stage.speed_at(path, s + 0.5 * speed), stage.cruise[drivers])
        gap, lead_speed = self._leaders(drivers)
        wanted = np.minimum(free_road(speed, desired), follow(speed, gap, lead_speed))
        if self.stop_gaps:
            stops = np.full(len(self.x), np.inf)
            stops[list(self.stop_gaps)] = list(self.stop_gaps.values())
            wanted = np.minimum(wanted, stop_at(speed, stops[drivers]))
        self._play_cues(drivers, wanted)
        if stage.changers:
            self._seek_gaps(desired, gap, lead_speed, drivers)
        wanted = np.minimum(np.maximum(wanted, -EMERGENCY_BRAKING), ACCELERATION)
        faster = np.maximum(speed + wanted * dt, 0.0)
        self.acceleration[drivers] = (faster - speed) / dt
        self.speed[drivers] = faster
        self.s[drivers] += (speed + faster) / 2 * dt
        self.change_time[drivers] = np.minimum(self.change_time[drivers] + dt, LANE_CHANGE_S)

    def _leaders(self, drivers: NDArray[np.intp]) -> tuple[Array, Array]:
        """Gap [M] to the nearest thing in each driver's corridor, and its speed [M] along the corridor."""
        view, stage = self.view, self.stage
        rows, own = self.path[drivers], np.arange(len(drivers))
        own_s, own_lateral = view.s[rows, drivers][:, None], view.lateral[rows, drivers][:, None]
        reach = stage.width[drivers][:, None] / 2 + CORRIDOR_MARGIN
        ahead = view.s[rows] - own_s
        blocking = (ahead > 0.0) & (ahead < SIGHT_METRES)
        blocking &= (view.rightmost[rows] < own_lateral + reach) & (view.leftmost[rows] > own_lateral - reach)
        blocking[own, drivers] = False
        gaps = ahead - view.half_length[rows] - stage.length[drivers][:, None] / 2
        blocking &= (gaps > 0.0) | ~stage.pedestrian  # a pedestrian beside the body waits himself
        gaps = np.where(blocking, gaps, np.inf)
        lead = gaps.argmin(axis=1)
        return gaps[own, lead], np.maximum(view.speed_along[rows, lead], 0.0)

    def _play_cues(self, drivers: NDArray[np.intp], wanted: Array) -> None:
        for k, i in enumerate(drivers.tolist()):
            cue, since = self.stage.parts[i].cue, float(self.cue_time[i])
            if cue is None:
                continue
            if cue.waits and since < cue.delay + cue.duration:
                wanted[k] = -EMERGENCY_BRAKING
            elif cue.delay <= since < cue.delay + cue.duration:
                slower = max((cue.speed - float(self.speed[i])) / 0.3, -cue.deceleration)
                wanted[k] = min(wanted[k], slower)

    def _seek_gaps(self, desired: Array, gap: Array, lead_speed: Array, drivers: NDArray[np.intp]) -> None:
        """Lane changes past a slow leader, where the gap beside is large enough both ways (once a second each)."""
        for k, i in enumerate(drivers.tolist()):
            if i not in self.stage.changers or self._ticks % 10 != i % 10 or self.change_time[i] < LANE_CHANGE_S:
                continue
            if gap[k] > 30.0 or lead_speed[k] > desired[k] - LANE_CHANGE_GAIN or self.speed[i] < 3.0:
                continue
            beside = self.stage.neighbours[self.path[i]]
            for target in (beside.left, beside.right):
                if target is not None and self._gap_accepted(i, target):
                    self._change_lane(i, target)
                    break

    def _gap_accepted(self, i: int, target: int) -> bool:
        """Whether nobody on the target path is near enough to be hindered, or to hinder, `i`."""
        view = self.view
        ahead = view.s[target] - view.s[target, i]
        there = (view.leftmost[target] > -1.5) & (view.rightmost[target] < 1.5) & self._others(i)
        room = view.half_length[target] + self.stage.length[i] / 2
        closing = self.speed[i] - view.speed_along[target]
        front = there & (ahead >= 0) & (ahead - room < 6.0 + np.maximum(0.0, 3.0 * closing))
        rear = there & (ahead < 0) & (-ahead - room < 6.0 + np.maximum(0.0, -3.0 * closing))
        return not bool((front | rear).any())

    def _others(self, i: int) -> NDArray[np.bool_]:
        others = np.ones(len(self.x), dtype=bool)
        others[i] = False
        return others

    def _change_lane(self, i: int, target: int) -> None:
        self.change_from[i] = float(self.view.lateral[target, i]) - self.rest[i]
        self.change_time[i] = 0.0
        self.s[i] = float(self.view.s[target, i])
        self.path[i] = target

    def _walk(self, i: int, dt: float) -> None:
        part = self.stage.parts[i]
        waiting = part.cue is not None and self.cue_time[i] < part.cue.delay
        arrived = self.s[i] >= self.stage.bundle.length[self.path[i]]
        speed = 0.0 if waiting or arrived or self._way_blocked(i) else part.cruise
        self.acceleration[i], self.speed[i] = (speed - self.speed[i]) / dt, speed
        self.s[i] += speed * dt
        self.walked[i] += speed * dt

    def _way_blocked(self, i: int) -> bool:
        """Whether a vehicle stands within a step ahead of a pedestrian."""
        cosine, sine = np.cos(self.yaw[i]), np.sin(self.yaw[i])
        dx, dy = self.x - self.x[i], self.y - self.y[i]
        near = np.flatnonzero((np.abs(dx) < 8.0) & (np.abs(dy) < 8.0) & ~self.stage.pedestrian)
        for j in near.tolist():
            turn = self.yaw[j] - self.yaw[i]
            along, across = abs(np.cos(turn)), abs(np.sin(turn))
            half_length = (along * self.stage.length[j] + across * self.stage.width[j]) / 2
            half_width = (across * self.stage.length[j] + along * self.stage.width[j] + self.stage.width[i]) / 2
            ahead, beside = dx[j] * cosine + dy[j] * sine, dy[j] * cosine - dx[j] * sine
            if ahead > 0.0 and ahead - half_length < _PAUSE_METRES and abs(beside) < half_width:
                return True
        return False

    def _place(self, moved: NDArray[np.intp]) -> None:
        """Poses from places on paths."""
        path, s = self.path[moved], self.s[moved]
        part = self.change_time[moved] / LANE_CHANGE_S
        left = 1.0 - part * part * part * (10.0 - 15.0 * part + 6.0 * part * part)
        slope = -30.0 * part * part * (1.0 - part) ** 2 / LANE_CHANGE_S
        lateral = self.rest[moved] + self.change_from[moved] * left
        self.x[moved], self.y[moved], yaw, curvature = self.stage.bundle.poses(path, s, lateral)
        speed = self.speed[moved]
        self.yaw[moved] = yaw + np.arctan2(self.change_from[moved] * slope, np.maximum(speed, 3.0))
        self.yaw_rate[moved] = speed * curvature

    def _actor(self, i: int) -> Actor:
        part = self.stage.parts[i]
        speed, yaw = float(self.speed[i]), float(self.yaw[i])
        changing = self.change_time[i] < LANE_CHANGE_S and self.change_from[i] != 0.0
        return Actor(
            id=i,
            category=part.category,
            attribute=_attribute(part, speed),
            x=float(self.x[i]),
            y=float(self.y[i]),
            yaw=float((yaw + np.pi) % (2 * np.pi) - np.pi),
            size=part.size,
            speed=speed,
            velocity=(speed * float(np.cos(yaw)), speed * float(np.sin(yaw))),
            acceleration=float(self.acceleration[i]),
            yaw_rate=float(self.yaw_rate[i]),
            brake_lights=self._braking(part, i, speed),
            indicator=-int(np.sign(self.change_from[i])) if changing else 0,
            walked=float(self.walked[i]),
            appearance=part.appearance,
        )

    def _braking(self, part: Part, i: int, speed: float) -> bool:
        motor = part.category in (Category.CAR, Category.TRUCK, Category.BUS)
        return motor and not part.parked and (self.acceleration[i] < -0.6 or speed < 0.1)


def _attribute(part: Part, speed: float) -> Attribute:
    if part.category is Category.PEDESTRIAN:
        return Attribute.WALKING if speed > 0.1 else Attribute.STANDING
    if part.category is Category.BICYCLE:
        return Attribute.WITH_RIDER
    if part.parked:
        return Attribute.PARKED
    return Attribute.MOVING if speed > 0.1 else Attribute.STOPPED
