"""Oriented boxes on the ground: their corners, and whether two of them overlap (separating axes)."""

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array

_SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])


def corners(boxes: Array) -> Array:
    """[A, 4, 2] corners (front left, front right, rear right, rear left) of boxes [A, 5]: x, y, yaw, length, width."""
    half = _SIGNS * boxes[:, None, 3:5] / 2
    cosine, sine = np.cos(boxes[:, 2, None]), np.sin(boxes[:, 2, None])
    x = boxes[:, 0, None] + half[..., 0] * cosine - half[..., 1] * sine
    y = boxes[:, 1, None] + half[..., 0] * sine + half[..., 1] * cosine
    return np.stack([x, y], axis=-1)


def overlaps(first: Array, second: Array) -> NDArray[np.bool_]:
    """[...] whether boxes [..., 5] overlap other boxes [..., 5], broadcast; boxes that only touch do not.

    Two boxes are apart where one of their four sides separates them: where their middles lie further apart along its
    normal than both reach.
    """
    x, y = second[..., 0] - first[..., 0], second[..., 1] - first[..., 1]
    turn = second[..., 2] - first[..., 2]
    along, across = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    apart = np.zeros(x.shape, dtype=np.bool_)
    for own, other in ((first, second), (second, first)):
        cosine, sine = np.cos(own[..., 2]), np.sin(own[..., 2])
        length, width = other[..., 3], other[..., 4]
        apart |= 2 * np.abs(x * cosine + y * sine) >= own[..., 3] + length * along + width * across
        apart |= 2 * np.abs(y * cosine - x * sine) >= own[..., 4] + length * across + width * along
    return ~apart
