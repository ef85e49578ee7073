"""A codebook of action tokens from what a vehicle can do, without any log.

Every token is a half second at constant speed and yaw rate. Tokens stand in rows of one distance each; the rows, and
the tokens of a row, are as close as the error allows that a box's corners may have: rows come further apart with
speed, and headings closer together, since at 30 m/s a degree is 0.13 m to the side.
"""

from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.language.action_codebook import ActionCodebook, box_contours

TOKEN_S = 0.5
ROW_METRES, ROW_GROWTH = 0.1, 0.035  # between the first two rows; and how much more, as a share, with every metre
BACKWARD_FACTOR = 2.0  # backwards the rows are so much further apart: it is rarely driven, and slowly
HEADING = np.radians(1.8)  # most between two tokens of a row
SIDEWAYS_METRES = 0.12  # the same at the end of an arc, where it is more than HEADING makes


@dataclass(frozen=True)
class MotionLimits:
    """What a vehicle can do: m/s forwards and backwards, 1/m, and m/s^2 to the side.

    The curvature is a turning circle of 9 m. In curvature and to the side the guard's limits (`safety.plan_checks`)
    are no tighter; its greatest speed is set for a vehicle, and is less. It refuses plans that lead backwards, so no
    token does unless `backward` is given.
    """

    forward: float = 36.0
    backward: float = 0.0
    curvature: float = 1 / 4.5
    lateral_acceleration: float = 4.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least_allowed = value >= 0 if name == "backward" else value > 0
            if not (np.isfinite(value) and least_allowed):
                raise ValueError(f"{name} of {value} is no limit of a vehicle; give a number above 0")

    def heading(self, distance: Array) -> Array:
        """The most that the heading changes, rad, in a token of this many metres."""
        speed = np.maximum(np.abs(distance) / TOKEN_S, 1e-9)
        return np.minimum(np.abs(distance) * self.curvature, self.lateral_acceleration / speed * TOKEN_S)


def lattice(limits: MotionLimits | None = None) -> ActionCodebook:
    """The codebook of these limits; token 0 stands still."""
    limits = limits or MotionLimits()
    forward = _rows(limits.forward * TOKEN_S, 1.0)
    backward = -_rows(limits.backward * TOKEN_S, BACKWARD_FACTOR)[:0:-1]
    distances = np.concatenate([forward, backward])
    return ActionCodebook(box_contours(np.concatenate([_row(distance, limits) for distance in distances])))


def arc(distance: Array, heading: Array) -> Array:
    """Poses [..., 3] at the end of arcs of `distance` metres [...] that turn by `heading` [...] radians."""
    chord = distance * np.sinc(heading / (2 * np.pi))
    return np.stack([chord * np.cos(heading / 2), chord * np.sin(heading / 2), heading], axis=-1)


def _rows(longest: float, factor: float) -> Array:
    """Distances from 0 up to the longest, at most half a step short of it."""
    distances = [0.0]
    while (step := factor * ROW_METRES * (1 + ROW_GROWTH * distances[-1])) / 2 < longest - distances[-1]:
        distances.append(min(distances[-1] + step, longest))
    return np.array(distances)


def _row(distance: float, limits: MotionLimits) -> Array:
    """Poses [K, 3] of one distance, straight on and to both sides up to the limit."""
    most = float(limits.heading(np.asarray(distance)))
    step = min(HEADING, 2 * SIDEWAYS_METRES / max(abs(distance), 1e-9))
    one_side = int(np.ceil(most / step))
    headings = np.linspace(-most, most, 2 * one_side + 1) if one_side else np.zeros(1)
    return arc(np.full(headings.shape, distance), headings)
