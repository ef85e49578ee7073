"""Whether one observation goes on from another, so that what was tracked still holds."""

import numpy as np

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import invert, wrap_angle, yaw_of
from opendrivevla_ros.core.observation import Observation

MAX_GAP_NS = 2_000_000_000  # without a plan for so long, the past is forgotten; training frames are 0.5 s apart
JUMP_METRES = 3.0  # more than the speeds of two frames explain
JUMP_RADIANS = 0.5  # more than their yaw rates explain


def follows(before: Observation, after: Observation) -> bool:
    """Whether `after` can go on from the temporal state of `before`: same frame, forward in time, no gap, no jump."""
    elapsed_ns = after.stamp_ns - before.stamp_ns
    if not 0 <= elapsed_ns <= MAX_GAP_NS or before.ego.world_frame != after.ego.world_frame:
        return False
    motion = invert(before.ego.base_to_world) @ after.ego.base_to_world
    seconds = elapsed_ns / 1e9
    fastest = max(_speed(before.ego), _speed(after.ego))
    quickest = max(abs(float(ego.angular_velocity[2])) for ego in (before.ego, after.ego))
    turned = abs(float(wrap_angle(yaw_of(motion))))
    return bool(
        np.hypot(*motion[:2, 3]) <= fastest * seconds + JUMP_METRES and turned <= quickest * seconds + JUMP_RADIANS
    )


def _speed(ego: EgoState) -> float:
    return float(np.hypot(*ego.velocity[:2]))
