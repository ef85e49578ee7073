"""What is thought before a plan, and where a thought is needed: the reasoning data of AutoVLA (arXiv 2506.13757)."""

from itertools import pairwise

import numpy as np

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.core.geometry import Array, distances_along
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.drive_store import Words
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.safety.road_users import Body

# The published headings of a thought, by the kind of caption that stands under each, in their order.
HEADINGS = {
    "scene": "### Scene Description:",
    "critical_objects": "### Critical Object Description:",
    "intent": "### Reasoning on Intent:",
    "action": "### Best Driving Action:",
}

LEAST_SPEED = 2.0  # m/s at which the way ahead is looked at by who stands or creeps
AHEAD_S, AHEAD_METRES = 0.5, 2.0  # of way before the bumper that must be free, at the speed of now, and at any
BESIDE_METRES = 0.3  # on either side of the body
STRAIGHT_ON_METRES = 8.0  # behind the end of the driven way: in a bend, straight on is soon another lane
STANDING_METRES = 0.2  # a step shorter than this has no course
BODY = Body(front=3.414, rear=0.67, half_width=0.925)  # of the nuScenes cars


def thought_of(words: Words) -> str | None:
    """The passages that a sample's captions have, under their headings; None where no action stands at the end.

    A thought that leads to no action teaches nothing about the plan after it.
    """
    told: dict[str, str] = {}
    for kind, _, text in words.captions:
        told.setdefault(kind.split()[-1] if kind else "", text.strip())
    if not told.get("action"):
        return None
    return "\n".join(f"{heading}\n{told[kind]}" for kind, heading in HEADINGS.items() if told.get(kind))


def needs_thought(sample: DrivingSample) -> bool:
    """Whether somebody matters: who went on along its way at its speed of now would come too near somebody soon.

    The way is the driven one of the sample's future and straight on behind it, the others are where they really were
    in the next 3 s. Only those count that can be seen, so that pictures tell what the rule asks for. Where a source
    has no agents, nobody is known to matter: False.
    """
    if sample.agents is None or not sample.future_mask[0]:
        return False
    seen = [agent for agent in sample.agents if agent.points > 0]
    if not seen:
        return False
    times = np.concatenate([[0.0], FUTURE_TIMES_S])
    speed = max(sample.observation.ego.speed, LEAST_SPEED)
    way = _way(sample)
    metres = speed * times
    poses = _along(way, metres)
    clear = AHEAD_METRES + AHEAD_S * speed
    watched = Body(BODY.front + clear, 0.0, BODY.half_width + BESIDE_METRES).boxes(poses)
    places = np.stack([np.concatenate([agent.position[None, :2], agent.future]) for agent in seen])  # [A, 7, 2]
    known = np.stack([np.concatenate([[True], agent.future_mask]) for agent in seen])
    rest = np.array([[agent.yaw, agent.size[0], agent.size[1]] for agent in seen])
    others = np.concatenate([places, np.broadcast_to(rest[:, None], (*places.shape[:2], 3))], axis=-1)
    on_way = metres <= distances_along(way)[-1] + STRAIGHT_ON_METRES
    return bool((overlaps(watched[None], others) & known & on_way).any())


def _way(sample: DrivingSample) -> Array:
    """Points [N, 2] of the driven way from the ego on, at least two."""
    driven = np.concatenate([np.zeros((1, 2)), sample.future[sample.future_mask, :2]])
    kept = [driven[0]]
    kept += [point for before, point in pairwise(driven) if np.hypot(*(point - before)) > STANDING_METRES]
    return np.array(kept if len(kept) > 1 else [*kept, [1.0, 0.0]])


def _along(way: Array, metres: Array) -> Array:
    """Poses [T, 3] so many metres [T] along a way [N, 2], which goes straight on behind its end."""
    stations, steps = distances_along(way), np.diff(way, axis=0)
    piece = np.clip(np.searchsorted(stations, metres, side="right") - 1, 0, len(steps) - 1)
    courses = np.arctan2(steps[:, 1], steps[:, 0])[piece]
    rest = metres - stations[piece]
    return np.column_stack([way[piece] + rest[:, None] * np.column_stack([np.cos(courses), np.sin(courses)]), courses])
