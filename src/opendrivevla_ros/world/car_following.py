"""The intelligent driver model (Treiber, Hennecke, Helbing 2000), over arrays of vehicles.

Free road and interaction are taken by their minimum rather than their sum, so that a follower keeps its time gap and a
free vehicle its speed limit.
"""

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import Array

ACCELERATION = 1.6  # m/s^2
COMFORTABLE_BRAKING = 2.0  # m/s^2
TIME_GAP = 1.3  # s
JAM_GAP = 2.2  # m
FIRM_BRAKING = 3.5  # m/s^2
EMERGENCY_BRAKING = 8.0  # m/s^2
_SAFETY = 1.4  # how much harder to brake than the collision course needs


def follow(speed: ArrayLike, gap: ArrayLike, lead_speed: ArrayLike, *, jam_gap: float = JAM_GAP) -> Array:
    """Acceleration, m/s^2, behind a leader `gap` metres ahead (bumper to bumper).

    Where the gap is too short only in time, as after a cut-in, it is opened with no more than FIRM_BRAKING; harder
    braking needs a collision course.
    """
    v, gap, lead_speed = np.asarray(speed, dtype=np.float64), np.maximum(gap, 0.1), np.asarray(lead_speed)
    closing = v * (v - lead_speed) / (2 * np.sqrt(ACCELERATION * COMFORTABLE_BRAKING))
    desired = jam_gap + np.maximum(0.0, v * TIME_GAP + closing)
    needed = np.maximum(v - lead_speed, 0.0) ** 2 / (2 * np.maximum(gap - 1.0, 0.1))
    hardest = np.minimum(np.maximum(FIRM_BRAKING, _SAFETY * needed), EMERGENCY_BRAKING)
    return np.maximum(ACCELERATION * (1.0 - (desired / gap) ** 2), -hardest)


def free_road(speed: ArrayLike, desired_speed: ArrayLike) -> Array:
    """Acceleration, m/s^2, towards a desired speed; slowing down for a bend is a first order lag of 0.7 s."""
    v, v0 = np.asarray(speed, dtype=np.float64), np.maximum(desired_speed, 0.1)
    slower = np.maximum((v0 - v) / 0.7, -3.0)
    return np.where(v > v0, slower, ACCELERATION * (1.0 - (v / v0) ** 4))


def stop_at(speed: ArrayLike, gap: ArrayLike) -> Array:
    """Acceleration, m/s^2, that stops half a metre short of `gap` metres ahead."""
    v, gap = np.asarray(speed, dtype=np.float64), np.maximum(gap, 0.05)
    return np.where(gap < 60.0, follow(v, gap + 0.5, 0.0, jam_gap=1.0), ACCELERATION)
