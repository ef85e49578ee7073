"""What is true in the driving world, in the terms of data sets: road layers, and who can be seen how well."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, Array, apply, invert, planar_transform
from opendrivevla_ros.datasets.nuscenes_map import LaneShape, RoadLayers
from opendrivevla_ros.world.appearance import palette
from opendrivevla_ros.world.scenery import build_scenery
from opendrivevla_ros.world.state import Actor, Appearance, Lane, Marking, RoadMap, WorldState

LABEL_METRES = 80.0  # nothing farther away is labelled
# The lidar of the nuScenes vehicles: 32 beams over 41 degrees, 20 turns a second.
BEAM_STEP, TURN_STEP = np.radians(1.33), np.radians(0.33)
VISIBILITY_SHARES = (0.4, 0.6, 0.8)  # the limits between nuScenes' four levels


@dataclass(frozen=True)
class SeenActor:
    """An actor near the ego. share: of its box that nothing hides. points: as a lidar would count them."""

    actor: Actor
    share: float
    points: int

    @property
    def visibility(self) -> int:
        """nuScenes' level, 1 to 4."""
        return 1 + sum(self.share > limit for limit in VISIBILITY_SHARES)


class Sight:
    """Who can be seen from the ego of one scenario: past other road users and houses; trees and poles hide nothing."""

    def __init__(self, road: RoadMap, appearance: Appearance) -> None:
        self._houses = _houses(road, appearance)

    def seen(self, state: WorldState) -> tuple[SeenActor, ...]:
        """The actors within LABEL_METRES, those that are hidden too.

        Rays go from the lidar of the nuScenes vehicles to 27 points in each box. The count of points is the solid
        angle of what is seen over that of one sample of that lidar.
        """
        eye = (state.ego.base_to_world @ NUSCENES_LIDAR_TO_BASE)[:3, 3]
        near = [actor for actor in state.actors if np.hypot(actor.x - eye[0], actor.y - eye[1]) < LABEL_METRES]
        if not near:
            return ()
        shares = 1.0 - _hidden(eye, [_Block(actor.pose, np.array(actor.size)) for actor in near], self._houses)
        return tuple(
            SeenActor(actor, share, int(share * _samples(actor, eye)))
            for actor, share in zip(near, shares.tolist(), strict=True)
        )


def moved(state: WorldState, seconds: float) -> WorldState:
    """The state a few hundredths of a second later or, negative, earlier, everyone going on as now."""
    ego = state.ego
    middle = ego.yaw + ego.yaw_rate * seconds / 2
    way = ego.speed * seconds
    there = replace(
        ego,
        x=ego.x + way * float(np.cos(middle)),
        y=ego.y + way * float(np.sin(middle)),
        yaw=ego.yaw + ego.yaw_rate * seconds,
    )
    actors = tuple(
        replace(
            actor,
            x=actor.x + actor.velocity[0] * seconds,
            y=actor.y + actor.velocity[1] * seconds,
            yaw=actor.yaw + actor.yaw_rate * seconds,
        )
        for actor in state.actors
    )
    return replace(state, ego=there, actors=actors)


def road_layers(road: RoadMap) -> RoadLayers:
    """The layers of a road map, in the world frame."""
    yellow = (Marking.SOLID_YELLOW, Marking.DASHED_YELLOW)
    return RoadLayers(
        drivable=road.drivable,
        lanes=tuple(LaneShape(_outline(lane), lane.in_junction, lane.successors) for lane in road.lanes),
        lane_dividers=tuple(divider.points for divider in road.dividers if divider.marking not in yellow),
        road_dividers=tuple(divider.points for divider in road.dividers if divider.marking in yellow),
        crosswalks=road.crosswalks,
        stop_lines=road.stop_lines,
        boundaries=road.boundaries,
    )


def _outline(lane: Lane) -> Array:
    """[2N, 2] the outline of a lane."""
    along = np.gradient(lane.centreline, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    left = np.column_stack([-along[:, 1], along[:, 0]]) * lane.width / 2
    return np.concatenate([lane.centreline - left, (lane.centreline + left)[::-1]])


def _samples(actor: Actor, eye: Array) -> float:
    """How often a lidar would meet an actor's box that nothing hides."""
    length, width, height = actor.size
    distance = max(float(np.hypot(actor.x - eye[0], actor.y - eye[1])), 1.0)
    angle = actor.yaw - np.arctan2(actor.y - eye[1], actor.x - eye[0])
    across = abs(length * np.sin(angle)) + abs(width * np.cos(angle))
    return float((across / distance / TURN_STEP) * (height / distance / BEAM_STEP))


class _Block(NamedTuple):
    """A box on the ground: pose [4, 4] of the middle of its base, and (length, width, height)."""

    pose: Array
    size: Array


def _houses(road: RoadMap, appearance: Appearance) -> list[_Block]:
    """The houses that the renderer draws there."""
    props = build_scenery(road, appearance.seed, palette(appearance).lamps)
    facades = [mesh for prop in props for name, mesh in prop.parts if name and name.startswith("facade")]
    blocks = []
    for facade in facades:
        wall = facade.vertices[1] - facade.vertices[0]
        yaw = float(np.arctan2(wall[1], wall[0]))
        turned = facade.vertices @ planar_transform(0.0, 0.0, yaw)[:3, :3]
        low, high = turned.min(axis=0), turned.max(axis=0)
        middle = planar_transform(0.0, 0.0, yaw)[:3, :3] @ ((low + high) / 2)
        blocks.append(_Block(planar_transform(middle[0], middle[1], yaw), high - low))
    return blocks


def _hidden(eye: Array, actors: list[_Block], houses: list[_Block]) -> Array:
    """[A] share of 27 points in each actor's box that some other box hides from `eye` (slab test)."""
    grid = np.array([(x, y, z) for x in (-0.45, 0, 0.45) for y in (-0.45, 0, 0.45) for z in (0.15, 0.5, 0.9)])
    points = np.stack([apply(pose, grid * size) for pose, size in actors])
    hidden = np.zeros(points.shape[:2], dtype=bool)
    for index, (pose, size) in enumerate([*actors, *houses]):
        to_block = invert(pose)
        start = apply(to_block, eye)
        way = apply(to_block, points) - start
        way = np.where(np.abs(way) < 1e-9, 1e-9, way)
        low, high = np.array([-size[0] / 2, -size[1] / 2, 0.0]), np.array([size[0] / 2, size[1] / 2, size[2]])
        first, second = (low - start) / way, (high - start) / way
        enter, leave = np.minimum(first, second).max(axis=-1), np.maximum(first, second).min(axis=-1)
        hits = (enter < leave) & (leave > 0) & (enter < 1)
        if index < len(actors):
            hits[index] = False  # nobody hides behind himself
        hidden |= hits
    return hidden.mean(axis=1)
