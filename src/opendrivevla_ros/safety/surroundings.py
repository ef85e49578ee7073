"""What a plan says is there, as the guard sees it later: from where the vehicle is now, in seconds from now."""

from collections.abc import Sequence

import numpy as np

from opendrivevla_ros.core.geometry import Array, apply, wrap_angle, yaw_of
from opendrivevla_ros.core.plan import Agent, MapElement
from opendrivevla_ros.safety.road_users import Movers

PREDICTION_STEP_S = 0.5  # of `Agent.predicted`
BOUNDARY = "boundary"  # the map class that must not be crossed


def movers_seen_from(agents: Sequence[Agent], base_to_now: Array, age_s: float) -> Movers:
    """Agents, which are in base_link `age_s` ago, where they are expected now and later.

    base_to_now: 4x4, base_link then to base_link now. Who has no predicted path keeps its velocity.
    """
    if not agents:
        return Movers()
    steps = max(len(agent.predicted) for agent in agents)
    times = np.arange(1, steps + 1) * PREDICTION_STEP_S
    then = Movers(
        boxes=np.array([[*agent.position[:2], agent.yaw, *agent.size[:2]] for agent in agents]),
        velocity=np.stack([agent.velocity for agent in agents]),
        times=times,
        paths=np.stack([_path(agent, times) for agent in agents]),
    )
    left = times > age_s
    return Movers(
        boxes=_moved(then.at(np.array([age_s]))[:, 0], base_to_now),
        velocity=then.velocity @ base_to_now[:2, :2].T,
        times=times[left] - age_s,
        paths=_places(then.paths[:, left], base_to_now),
    )


def boundaries_seen_from(elements: Sequence[MapElement], base_to_now: Array) -> list[Array]:
    """The road's boundaries among map elements, polylines [N, 2] in base_link now."""
    lines = [
        np.vstack([element.points, element.points[:1]]) if element.closed else element.points
        for element in elements
        if element.label == BOUNDARY
    ]
    return [_places(line, base_to_now) for line in lines]


def _path(agent: Agent, times: Array) -> Array:
    """[K, 2] the predicted path, at the agent's velocity behind its end."""
    known = np.vstack([agent.position[:2], agent.predicted])
    last = len(known) - 1
    beyond = np.maximum(times - last * PREDICTION_STEP_S, 0.0)[:, None] * agent.velocity
    return known[np.minimum(np.arange(1, len(times) + 1), last)] + beyond


def _places(xy: Array, base_to_now: Array) -> Array:
    """[..., 2] places of one ground plane in the other."""
    return apply(base_to_now, np.concatenate([xy, np.zeros((*xy.shape[:-1], 1))], axis=-1))[..., :2]


def _moved(boxes: Array, base_to_now: Array) -> Array:
    yaw = wrap_angle(boxes[:, 2] + yaw_of(base_to_now))
    return np.column_stack([_places(boxes[:, :2], base_to_now), yaw, boxes[:, 3:]])
