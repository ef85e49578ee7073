"""Whether a motion is comfortable, by the limits of the driver score (NAVSIM, arXiv 2406.15349, after nuPlan).

As there, accelerations are smoothed and derivatives taken by fitting parabolas to SMOOTHED and DERIVED instants around
each (Savitzky and Golay, 1964): a tracker's commands step, and a passenger does not feel a step of 0.1 s.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import savgol_filter

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.evaluation.plan_tracker import STEP_S, Motion

SMOOTHED, DERIVED = 8, 15  # instants
MOST_BRAKING, MOST_ACCELERATION = 4.05, 2.40  # m/s^2, lengthwise
MOST_LATERAL = 4.89  # m/s^2
MOST_JERK, MOST_LENGTHWISE_JERK = 8.37, 4.13  # m/s^3
MOST_YAW_ACCELERATION, MOST_YAW_RATE = 1.93, 0.95  # rad/s^2, rad/s


@dataclass(frozen=True)
class Comfort:
    """The largest of a motion, all of them 0 or more, in the units of the limits."""

    braking: float
    acceleration: float
    lateral: float
    jerk: float
    lengthwise_jerk: float
    yaw_acceleration: float
    yaw_rate: float

    @property
    def exceeded(self) -> tuple[str, ...]:
        """What is beyond its limit, by name."""
        return tuple(name for name, limit in LIMITS.items() if getattr(self, name) >= limit)

    @property
    def comfortable(self) -> bool:
        """Whether all are within their limits."""
        return not self.exceeded


LIMITS = {
    "braking": MOST_BRAKING,
    "acceleration": MOST_ACCELERATION,
    "lateral": MOST_LATERAL,
    "jerk": MOST_JERK,
    "lengthwise_jerk": MOST_LENGTHWISE_JERK,
    "yaw_acceleration": MOST_YAW_ACCELERATION,
    "yaw_rate": MOST_YAW_RATE,
}


def comfort(motion: Motion) -> Comfort:
    """Of a motion every STEP_S. Raises ValueError for less than DERIVED instants, or for one that is not finite."""
    rows = (motion.acceleration, motion.speed, motion.yaw_rate)
    if len(motion.times) < DERIVED or not all(np.isfinite(row).all() for row in rows):
        raise ValueError(f"comfort needs at least {DERIVED} finite instants, not {len(motion.times)}")
    lengthwise = savgol_filter(motion.acceleration, SMOOTHED, 2)
    sideways = savgol_filter(motion.speed * motion.yaw_rate, SMOOTHED, 2)
    jerks = np.stack([_slope(lengthwise), _slope(sideways)])
    return Comfort(
        braking=max(0.0, -float(lengthwise.min())),
        acceleration=max(0.0, float(lengthwise.max())),
        lateral=float(np.abs(sideways).max()),
        jerk=float(np.hypot(*jerks).max()),
        lengthwise_jerk=float(np.abs(jerks[0]).max()),
        yaw_acceleration=float(np.abs(_slope(motion.yaw_rate)).max()),
        yaw_rate=float(np.abs(motion.yaw_rate).max()),
    )


def _slope(values: Array) -> Array:
    slope: Array = savgol_filter(values, DERIVED, 2, deriv=1, delta=STEP_S)
    return slope
