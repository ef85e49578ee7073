"""A small crossroads with traffic, for the tests of the renderer and of narration."""

from dataclasses import replace

import numpy as np

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.core.geometry import apply
from opendrivevla_ros.world.road_builder import CrossSection, RoadMapBuilder
from opendrivevla_ros.world.state import Actor, Appearance, Attribute, Category, Ego, RoadMap, WorldState

SIZES = {
    Category.CAR: (4.6, 1.9, 1.6),
    Category.TRUCK: (8.0, 2.6, 3.3),
    Category.BUS: (11.0, 2.9, 3.3),
    Category.BICYCLE: (1.8, 0.7, 1.75),
    Category.PEDESTRIAN: (0.7, 0.7, 1.75),
}


def crossroads() -> RoadMap:
    """Four arms of 60 to 160 m that meet at the origin; the southern one has parking lanes."""
    builder = RoadMapBuilder(speed_limit=10.0)
    plain, parking = CrossSection(lanes=1), CrossSection(lanes=1, parking_right=True, parking_left=True)
    arms = []
    for heading, length, section in (
        (0.0, 90.0, plain),
        (0.5, 60.0, plain),
        (1.0, 160.0, parking),
        (1.5, 90.0, plain),
    ):
        direction = np.array([np.cos(heading * np.pi), np.sin(heading * np.pi)])
        arms.append(builder.add_road(np.linspace(12.0, length, 40)[:, None] * direction, section))
    builder.add_junction(arms)
    return builder.build()


def actor(number: int, category: Category, ahead: float, left: float, ego: Ego, yaw: float = 0.0, **more) -> Actor:
    """An actor whose place and heading are given in the ego's frame."""
    x, y, _ = apply(ego.base_to_world, [ahead, left, 0.0])
    default = Attribute.WALKING if category is Category.PEDESTRIAN else Attribute.MOVING
    attribute = more.pop("attribute", Attribute.WITH_RIDER if category is Category.BICYCLE else default)
    speed = more.pop("speed", 0.0)
    heading = ego.yaw + yaw
    velocity = (speed * np.cos(heading), speed * np.sin(heading))
    return Actor(number, category, attribute, x, y, heading, SIZES[category], speed=speed, velocity=velocity, **more)


def empty_street(ego_x: float = -50.0, appearance: Appearance | None = None) -> WorldState:
    """The ego alone, in the right lane of the arm with parking, heading for the junction."""
    ego = Ego(ego_x, -1.75, 0.0, 8.0)
    return WorldState(0, ego, (), crossroads(), appearance or Appearance(1), Command.KEEP_FORWARD)


def busy_street(appearance: Appearance | None = None) -> WorldState:
    """Every category in view of the front cameras, some behind."""
    state = empty_street(appearance=appearance)
    ego = state.ego
    actors = (
        actor(0, Category.CAR, 18.0, 0.0, ego, speed=5.0, brake_lights=True, appearance=4),
        actor(1, Category.BUS, 34.0, 3.5, ego, yaw=np.pi, speed=7.0, appearance=2),
        actor(2, Category.CAR, 8.0, -2.95, ego, attribute=Attribute.PARKED, appearance=1),
        actor(3, Category.CAR, 14.5, -2.95, ego, attribute=Attribute.PARKED, appearance=9),
        actor(4, Category.PEDESTRIAN, 26.0, -4.5, ego, yaw=1.5, speed=1.3, walked=0.4, appearance=3),
        actor(5, Category.PEDESTRIAN, 12.0, 7.5, ego, yaw=0.3, speed=1.3, walked=1.0, appearance=5),
        actor(6, Category.BICYCLE, 11.0, 3.4, ego, yaw=np.pi, speed=4.0, walked=3.0, appearance=6),
        actor(7, Category.TRUCK, -14.0, 0.0, ego, speed=8.0, appearance=7),
        actor(8, Category.CAR, -9.0, 3.5, ego, yaw=np.pi, speed=8.0, appearance=8),
    )
    return replace(state, actors=actors)
