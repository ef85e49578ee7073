"""What can be seen from the ego vehicle, with everything that words need: place, motion, and why it matters."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.boxes import corners
from opendrivevla_ros.core.geometry import Array, apply, invert, wrap_angle
from opendrivevla_ros.world.meta_action import STANDSTILL_SPEED
from opendrivevla_ros.world.scenery import house_walls
from opendrivevla_ros.world.state import EGO_CENTRE_AHEAD, EGO_WIDTH, Actor, Attribute, Category, WorldState

SIGHT_METRES = 50.0
VEHICLES = (Category.CAR, Category.TRUCK, Category.BUS)
HIDING_HEIGHT = 0.8  # a vehicle hides what is at most 1 / 0.8 of its height

LEAD_METRES, CROSSING_METRES, SIDE_METRES = 40.0, 35.0, 25.0  # how far along the path something still matters
LOOK_AHEAD_S = 3.0
PATH_EXTENSION = 15.0  # metres straight on beyond the planned motion
CLEARANCE = 0.6  # metres to each side of the ego's body that count as its way
SIDEWAYS_SPEED = 0.35  # m/s towards the path


class Direction(Enum):
    """Eighths of the circle around the ego, each centred on its name, counter-clockwise from ahead."""

    AHEAD = "ahead"
    AHEAD_LEFT = "ahead to the left"
    LEFT = "on the left"
    BEHIND_LEFT = "behind to the left"
    BEHIND = "behind"
    BEHIND_RIGHT = "behind to the right"
    RIGHT = "on the right"
    AHEAD_RIGHT = "ahead to the right"


class Motion(Enum):
    """How a road user moves, its course told from the ego's heading."""

    PARKED = "parked"
    STANDING = "standing still"
    ALONG = "moving the same way"
    ONCOMING = "coming towards us"
    LEFTWARDS = "crossing from right to left"
    RIGHTWARDS = "crossing from left to right"


class Reason(Enum):
    """Why a road user is critical."""

    CROSSING = "crosses our path"
    LEAD_BRAKING = "brakes ahead in our lane"
    STOPPED_AHEAD = "stands in our way"
    CUTTING_IN = "moves over into our path"
    LEAD = "drives ahead in our lane"
    NEAR_PATH = "stands close to our path"
    ONCOMING = "comes towards us close to our path"


URGENT = (Reason.CROSSING, Reason.LEAD_BRAKING, Reason.STOPPED_AHEAD, Reason.CUTTING_IN)


@dataclass(frozen=True)
class Seen:
    """A visible road user in base_link. x, y: metres, of its middle. velocity: [2] m/s over ground.

    heading: radians against the ego's. distance: metres from the middle of the ego's body to its own.
    """

    actor: Actor
    x: float
    y: float
    heading: float
    velocity: tuple[float, float]
    distance: float

    @property
    def direction(self) -> Direction:
        bearing = np.arctan2(self.y, self.x - EGO_CENTRE_AHEAD)
        return tuple(Direction)[round(float(bearing) / (np.pi / 4)) % 8]

    @property
    def motion(self) -> Motion:
        if self.actor.attribute is Attribute.PARKED:
            return Motion.PARKED
        speed = float(np.hypot(*self.velocity))
        if speed < STANDSTILL_SPEED:
            return Motion.STANDING
        course = float(np.arctan2(self.velocity[1], self.velocity[0]))
        if abs(course) < np.pi / 4:
            return Motion.ALONG
        if abs(course) > 3 * np.pi / 4:
            return Motion.ONCOMING
        return Motion.LEFTWARDS if course > 0 else Motion.RIGHTWARDS


@dataclass(frozen=True)
class Critical:
    """A road user that the plan has to heed. along: metres of path up to it."""

    seen: Seen
    reason: Reason
    along: float


def visible_actors(state: WorldState, within: float = SIGHT_METRES) -> tuple[Seen, ...]:
    """All road users within so many metres that no house and no other vehicle hides, the nearest first."""
    world_to_base = invert(state.ego.base_to_world)
    eye = np.array(state.ego.centre)
    near = [actor for actor in state.actors if np.hypot(actor.x - eye[0], actor.y - eye[1]) <= within]
    houses = _houses_near(state, eye, within)
    found = []
    for actor in near:
        vehicles = [_box(other) for other in near if other is not actor and _may_hide(other, actor)]
        if _hidden(eye, _box(actor), np.concatenate([houses, np.reshape(vehicles, (-1, 5))])):
            continue
        x, y, _ = apply(world_to_base, [actor.x, actor.y, 0.0]).tolist()
        velocity = world_to_base[:2, :2] @ np.array(actor.velocity)
        heading = float(wrap_angle(actor.yaw - state.ego.yaw))
        distance = float(np.hypot(actor.x - eye[0], actor.y - eye[1]))
        found.append(Seen(actor, x, y, heading, (float(velocity[0]), float(velocity[1])), distance))
    return tuple(sorted(found, key=lambda seen: (seen.distance, seen.actor.id)))


def critical_actors(seen: Sequence[Seen], future: ArrayLike) -> tuple[Critical, ...]:
    """What matters for a motion `future` ([N, 2] and more columns, base_link): urgent ones first, then by distance."""
    path = _path(np.asarray(future, dtype=np.float64)[:, :2])
    found = []
    for one in seen:
        along, lateral, course = _place_on_path(path, one.x, one.y)
        reason = _reason(one, path, along, lateral, course)
        if reason is not None:
            found.append(Critical(one, reason, along))
    return tuple(sorted(found, key=lambda one: (one.reason not in URGENT, one.along, one.seen.actor.id)))


def _may_hide(blocker: Actor, target: Actor) -> bool:
    return blocker.category in VEHICLES and blocker.size[2] >= HIDING_HEIGHT * target.size[2]


def _box(actor: Actor) -> Array:
    """[5]: x, y, yaw, length, width."""
    return np.array([actor.x, actor.y, actor.yaw, actor.size[0], actor.size[1]])


def _houses_near(state: WorldState, eye: Array, within: float) -> Array:
    """[H, 5] outlines of the houses that reach into the circle."""
    houses = house_walls(state.road, state.appearance.seed)
    reach = np.hypot(houses[:, 3], houses[:, 4]) / 2
    return houses[np.hypot(houses[:, 0] - eye[0], houses[:, 1] - eye[1]) - reach <= within]


def _hidden(eye: Array, target: Array, boxes: Array) -> bool:
    """Whether each line from `eye` to the middle and corners of a box [5] passes through some of `boxes` [B, 5]."""
    if not len(boxes):
        return False
    points = np.concatenate([target[None, :2], corners(target[None])[0]])
    cosine, sine = np.cos(boxes[:, 2]), np.sin(boxes[:, 2])
    turn = np.stack([np.stack([cosine, sine], -1), np.stack([-sine, cosine], -1)], axis=1)  # [B, 2, 2] world to box
    start = np.einsum("bij,bj->bi", turn, eye - boxes[:, :2])[:, None]
    end = np.einsum("bij,bpj->bpi", turn, points - boxes[:, None, :2])
    step = end - start
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    half = boxes[:, None, 3:5] / 2
    first, last = (-half - start) / step, (half - start) / step
    enter = np.minimum(first, last).max(axis=-1)
    leave = np.maximum(first, last).min(axis=-1)
    crossed = (np.maximum(enter, 0.0) < np.minimum(leave, 1.0)).any(axis=0)
    return bool(crossed.all())


def _path(future: Array) -> Array:
    """The way ahead [M, 2] from the origin along the planned points and straight on, points at least 0.3 m apart."""
    points = [np.zeros(2)]
    for point in future:
        if np.hypot(*(point - points[-1])) >= 0.3:
            points.append(point)
    course = points[-1] - points[-2] if len(points) > 1 else np.array([1.0, 0.0])
    points.append(points[-1] + PATH_EXTENSION * course / np.hypot(*course))
    return np.array(points)


def _place_on_path(path: Array, x: float, y: float) -> tuple[float, float, float]:
    """Metres along the path, metres to its left and the path's course there, for the nearest point of the path.

    Beyond either end the first or last piece goes straight on.
    """
    starts, steps = path[:-1], np.diff(path, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    units = steps / lengths[:, None]
    relative = np.array([x, y]) - starts
    along = (relative * units).sum(axis=1)
    low = np.zeros(len(starts))
    high = lengths.copy()
    low[0], high[-1] = -np.inf, np.inf
    clamped = np.clip(along, low, high)
    nearest = int(np.argmin(np.hypot(*(relative - clamped[:, None] * units).T)))
    unit = units[nearest]
    lateral = float(unit[0] * relative[nearest, 1] - unit[1] * relative[nearest, 0])
    before = float(lengths[:nearest].sum())
    return before + float(clamped[nearest]), lateral, float(np.arctan2(unit[1], unit[0]))


def _reason(one: Seen, path: Array, along: float, lateral: float, course: float) -> Reason | None:
    actor = one.actor
    turned = float(wrap_angle(one.heading - course))
    half_width = _half_width_across(actor, turned)
    gap = abs(lateral) - half_width - EGO_WIDTH / 2
    on_path = gap < CLEARANCE - 0.35 and along > EGO_CENTRE_AHEAD
    same_way = abs(turned) < np.pi / 4
    speed = float(np.hypot(*one.velocity))
    if actor.attribute is Attribute.PARKED:
        return Reason.NEAR_PATH if 0 < along < SIDE_METRES and gap < CLEARANCE else None
    if speed < STANDSTILL_SPEED:
        if on_path and along < LEAD_METRES:
            return Reason.STOPPED_AHEAD
        return Reason.NEAR_PATH if 0 < along < SIDE_METRES and gap < CLEARANCE else None
    if on_path and same_way and along < LEAD_METRES:
        return Reason.LEAD_BRAKING if actor.brake_lights else Reason.LEAD
    if 0 < along < CROSSING_METRES and not same_way and abs(turned) < 3 * np.pi / 4:
        return Reason.CROSSING if _reaches_path(one, path, half_width) else None
    sideways = -np.sign(lateral) * (-np.sin(course) * one.velocity[0] + np.cos(course) * one.velocity[1])
    if same_way and 0 < along < SIDE_METRES and abs(lateral) < 5.0 and sideways > SIDEWAYS_SPEED:
        return Reason.CUTTING_IN
    if (
        abs(turned) >= 3 * np.pi / 4
        and 0 < along < LEAD_METRES
        and (gap < CLEARANCE or _reaches_path(one, path, half_width))
    ):
        return Reason.ONCOMING
    return None


def _reaches_path(one: Seen, path: Array, half_width: float) -> bool:
    """Whether it is in our way now, or within LOOK_AHEAD_S if it keeps its velocity."""
    for time in np.arange(0.0, LOOK_AHEAD_S + 0.1, 0.25):
        along, lateral, _ = _place_on_path(path, one.x + time * one.velocity[0], one.y + time * one.velocity[1])
        if along > EGO_CENTRE_AHEAD and abs(lateral) < half_width + EGO_WIDTH / 2 + CLEARANCE:
            return True
    return False


def _half_width_across(actor: Actor, turned: float) -> float:
    """Half of what its box, `turned` against the path, takes of the path's width, metres."""
    length, width, _ = actor.size
    return float(abs(np.sin(turned)) * length + abs(np.cos(turned)) * width) / 2
