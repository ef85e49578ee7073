"""Meta-actions: what a planned motion amounts to, in words (AutoVLA's labels for reasoning data)."""

from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

STANDSTILL_SPEED = 0.3  # m/s
CONSTANT_SPEED_CHANGE = 0.8  # m/s
QUICK_RATIO = 2.0
FORWARD_OFFSET, TURN_OFFSET = 2.0, 4.0  # metres to the side


class Longitudinal(Enum):
    STOP = "stop"
    DECELERATION_TO_ZERO = "deceleration to zero"
    CONSTANT_SPEED = "constant speed"
    ACCELERATION = "acceleration"
    QUICK_ACCELERATION = "quick acceleration"
    DECELERATION = "deceleration"
    QUICK_DECELERATION = "quick deceleration"

    @property
    def slows(self) -> bool:
        return self in (
            Longitudinal.STOP,
            Longitudinal.DECELERATION_TO_ZERO,
            Longitudinal.DECELERATION,
            Longitudinal.QUICK_DECELERATION,
        )


class Lateral(Enum):
    FORWARD = "move forward"
    TURN_LEFT = "turn left"
    TURN_RIGHT = "turn right"
    LANE_CHANGE_LEFT = "change lane to the left"
    LANE_CHANGE_RIGHT = "change lane to the right"


def longitudinal_action(first_speed: float, last_speed: float) -> Longitudinal:
    """What happens to the speed (m/s, forwards) between the first and the last point of a motion."""
    if last_speed < STANDSTILL_SPEED:
        return Longitudinal.STOP if first_speed < STANDSTILL_SPEED else Longitudinal.DECELERATION_TO_ZERO
    if abs(last_speed - first_speed) < CONSTANT_SPEED_CHANGE:
        return Longitudinal.CONSTANT_SPEED
    if last_speed > first_speed:
        quick = last_speed > QUICK_RATIO * first_speed
        return Longitudinal.QUICK_ACCELERATION if quick else Longitudinal.ACCELERATION
    quick = first_speed > QUICK_RATIO * last_speed
    return Longitudinal.QUICK_DECELERATION if quick else Longitudinal.DECELERATION


def lateral_action(offsets: ArrayLike) -> Lateral:
    """What happens sideways, from the y [N] of a motion in base_link at its start, metres, left positive."""
    y = np.asarray(offsets, dtype=np.float64)
    if len(y) == 0 or np.abs(y).max() < FORWARD_OFFSET:
        return Lateral.FORWARD
    if abs(y[-1]) > TURN_OFFSET:
        return Lateral.TURN_LEFT if y[-1] > 0 else Lateral.TURN_RIGHT
    return Lateral.LANE_CHANGE_LEFT if y[-1] > 0 else Lateral.LANE_CHANGE_RIGHT


def meta_action(lateral: Lateral, longitudinal: Longitudinal) -> str:
    """The label as it is written: "{lateral} with {longitudinal}"."""
    return f"{lateral.value} with {longitudinal.value}"
