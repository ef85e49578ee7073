"""The words of the world: road map, road users, ego and the whole state at one instant. Frozen, SI, REP 103.

The world frame is a flat plane, z = 0 on the road surface, z up. Poses are (x, y, yaw) in metres and radians.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from opendrivevla_ros.core.ego import WHEELBASE, Command
from opendrivevla_ros.core.geometry import Array, planar_transform

# The ego vehicle has the measures of the nuScenes cars (Renault Zoe); base_link is the ground under the rear axle.
EGO_LENGTH, EGO_WIDTH, EGO_HEIGHT = 4.084, 1.73, 1.562
EGO_WHEELBASE = WHEELBASE
EGO_CENTRE_AHEAD = 1.40  # metres from the rear axle forward to the middle of the body


class Marking(Enum):
    """What a painted line along the road means, in colour and stroke."""

    DASHED_WHITE = "dashed white"  # between lanes of one direction: may be crossed
    SOLID_YELLOW = "solid yellow"  # between the two directions
    DASHED_YELLOW = "dashed yellow"  # between the two directions of a one-lane road
    SOLID_WHITE = "solid white"  # between the outer lane and a parking lane


@dataclass(frozen=True)
class Lane:
    """A lane in its direction of travel.

    centreline: [N, 2] metres, about 1 m apart. turn: None on a road; what it does, for a lane across a junction.
    left, right: ids of the neighbours of the same direction. successors, predecessors: ids of lanes end to end.
    """

    id: int
    road: int
    centreline: Array
    width: float
    speed_limit: float
    turn: Command | None = None
    left: int | None = None
    right: int | None = None
    successors: tuple[int, ...] = ()
    predecessors: tuple[int, ...] = ()

    @property
    def in_junction(self) -> bool:
        return self.turn is not None


@dataclass(frozen=True)
class Divider:
    """A painted line along the road. points: [N, 2] metres."""

    points: Array
    marking: Marking


@dataclass(frozen=True)
class RoadMap:
    """A piece of town.

    boundaries: kerb polylines [N, 2], each with the drivable area on its LEFT hand (the footpath is on the right).
    crosswalks: polygons [4, 2]. stop_lines: segments [2, 2]. drivable: polygons [N, 2] (one for each road with its
    parking lanes, one for each junction), whose union is the drivable area. parking: polygons [N, 2] of the parking
    lanes. lanes[i].id == i.
    """

    lanes: tuple[Lane, ...]
    dividers: tuple[Divider, ...]
    boundaries: tuple[Array, ...]
    crosswalks: tuple[Array, ...]
    stop_lines: tuple[Array, ...]
    drivable: tuple[Array, ...]
    junctions: tuple[Array, ...] = ()
    parking: tuple[Array, ...] = ()

    @property
    def bounds(self) -> Array:
        """[2, 2]: the least and the greatest x and y of the drivable area."""
        points = np.concatenate(self.drivable)
        return np.stack([points.min(axis=0), points.max(axis=0)])


class Category(Enum):
    """What a road user is, in the words of nuScenes' category table."""

    CAR = "vehicle.car"
    TRUCK = "vehicle.truck"
    BUS = "vehicle.bus.rigid"
    BICYCLE = "vehicle.bicycle"
    PEDESTRIAN = "human.pedestrian.adult"

    @property
    def detection_name(self) -> str:
        """The class of nuScenes' detection task."""
        return {"human.pedestrian.adult": "pedestrian", "vehicle.bus.rigid": "bus"}.get(self.value, self.value[8:])


class Attribute(Enum):
    """What a road user is doing, in the words of nuScenes' attribute table."""

    MOVING = "vehicle.moving"
    STOPPED = "vehicle.stopped"
    PARKED = "vehicle.parked"
    WITH_RIDER = "cycle.with_rider"
    WALKING = "pedestrian.moving"
    STANDING = "pedestrian.standing"


@dataclass(frozen=True)
class Actor:
    """A road user; x, y is the middle of its box on the ground.

    size: (length, width, height). speed: m/s along yaw; acceleration: m/s^2 along yaw; yaw_rate: rad/s.
    velocity: (x, y) m/s in the world frame. indicator: +1 left, -1 right, 0 off. walked: metres walked so far, for
    the phase of the legs. appearance: seed of its colour and shape, constant over its life.
    """

    id: int
    category: Category
    attribute: Attribute
    x: float
    y: float
    yaw: float
    size: tuple[float, float, float]
    speed: float = 0.0
    velocity: tuple[float, float] = (0.0, 0.0)
    acceleration: float = 0.0
    yaw_rate: float = 0.0
    brake_lights: bool = False
    indicator: int = 0
    walked: float = 0.0
    appearance: int = 0

    @property
    def pose(self) -> Array:
        """[4, 4]: the actor's frame (middle of its base, x forward) in the world frame."""
        return planar_transform(self.x, self.y, self.yaw)


@dataclass(frozen=True)
class Ego:
    """The ego vehicle; x, y, yaw are those of base_link in the world frame.

    speed: longitudinal, m/s. acceleration: longitudinal, m/s^2. steering: at the front wheels, rad, left positive.
    """

    x: float
    y: float
    yaw: float
    speed: float
    acceleration: float = 0.0
    steering: float = 0.0
    brake_lights: bool = False

    @property
    def yaw_rate(self) -> float:
        """rad/s, of the kinematic bicycle about the rear axle."""
        return self.speed * float(np.tan(self.steering)) / EGO_WHEELBASE

    @property
    def base_to_world(self) -> Array:
        return planar_transform(self.x, self.y, self.yaw)

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the body on the ground, world frame."""
        return self.x + EGO_CENTRE_AHEAD * np.cos(self.yaw), self.y + EGO_CENTRE_AHEAD * np.sin(self.yaw)


class TimeOfDay(Enum):
    DAY = "day"
    DUSK = "dusk"
    NIGHT = "night"


class Weather(Enum):
    CLEAR = "clear"
    CLOUDY = "cloudy"
    RAIN = "rain"
    FOG = "fog"


@dataclass(frozen=True)
class Appearance:
    """How the place looks. seed: of everything that is only decoration (houses, trees, textures, exposure)."""

    seed: int
    time_of_day: TimeOfDay = TimeOfDay.DAY
    weather: Weather = Weather.CLEAR


@dataclass(frozen=True)
class WorldState:
    """Everything that is true at one instant. time_ns counts from the start of the scenario."""

    time_ns: int
    ego: Ego
    actors: tuple[Actor, ...]
    road: RoadMap
    appearance: Appearance
    command: Command
