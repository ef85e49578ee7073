"""How near the ego comes to others, and whose fault it is when they touch."""

import numpy as np

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import EGO_LENGTH, Actor
from opendrivevla_ros.world.vehicle import ego_box

WITHIN_LANE = (
    1.6  # metres that the ego's middle may be off the route: room to pass a parked car, not to leave the lane
)
HORIZON_S, RESOLUTION_S = 4.0, 0.1
STANDING_SPEED = 0.3  # m/s


def time_to_collision(world: World) -> float:
    """Seconds until the ego touches anyone if all keep speed and heading; infinite beyond 4 s, or while it stands."""
    ego, traffic = world.ego, world.traffic
    if ego.speed < STANDING_SPEED:
        return np.inf
    boxes, speed = traffic.boxes(), traffic.speed[:-1]
    velocity = speed[:, None] * np.column_stack([np.cos(boxes[:, 2]), np.sin(boxes[:, 2])])
    closing: Array = velocity - ego.speed * np.array([np.cos(ego.yaw), np.sin(ego.yaw)])
    box = ego_box(ego)
    reach = np.hypot(*closing.T) * HORIZON_S + (np.hypot(box[3], box[4]) + np.hypot(boxes[:, 3], boxes[:, 4])) / 2
    near = np.flatnonzero(np.hypot(boxes[:, 0] - box[0], boxes[:, 1] - box[1]) < reach)
    times = np.arange(0.0, HORIZON_S + RESOLUTION_S / 2, RESOLUTION_S)
    later = np.repeat(boxes[None, near], len(times), axis=0)
    later[:, :, :2] += times[:, None, None] * closing[near]
    touching = overlaps(box, later).any(axis=1)
    return round(float(times[touching.argmax()]), 1) if touching.any() else np.inf


def at_fault(world: World, other: Actor) -> bool:
    """Whether touching `other` now is the ego's doing, in the manner of nuPlan's at-fault collisions.

    It is not where the ego is within its lane and either stands, or is struck from behind: the other's middle is
    behind the ego's rear bumper. Everything else is, a pedestrian who walks into its side included: the expert shows
    that every scenario can be driven without a collision.
    """
    ego = world.ego
    if abs(world.lateral) > WITHIN_LANE:
        return True
    x, y = ego.centre
    ahead = (other.x - x) * np.cos(ego.yaw) + (other.y - y) * np.sin(ego.yaw)
    return not (ego.speed < STANDING_SPEED or ahead < -EGO_LENGTH / 2)
