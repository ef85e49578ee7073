"""Oriented boxes on the ground: their corners, and whether two of them overlap (separating axes)."""

import numpy as np

from opendrivevla_ros.core.geometry import Array

_SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])


def corners(boxes: Array) -> Array:
    """[A, 4, 2] corners (front left, front right, rear right, rear left) of boxes [A, 5]: x, y, yaw, length, width."""
    half = _SIGNS * boxes[:, None, 3:5] / 2
    cosine, sine = np.cos(boxes[:, 2, None]), np.sin(boxes[:, 2, None])
    x = boxes[:, 0, None] + half[..., 0] * cosine - half[..., 1] * sine
    y = boxes[:, 1, None] + half[..., 0] * sine + half[..., 1] * cosine
    return np.stack([x, y], axis=-1)


def overlaps(box: Array, others: Array) -> Array:
    """[A] bool: whether `box` [5] overlaps each of `others` [A, 5]; boxes that only touch do not."""
    result = np.zeros(len(others), dtype=bool)
    reach = (np.hypot(box[3], box[4]) + np.hypot(others[:, 3], others[:, 4])) / 2
    near = np.flatnonzero(np.hypot(others[:, 0] - box[0], others[:, 1] - box[1]) < reach)
    if not len(near):
        return result
    first, second = corners(box[None])[0], corners(others[near])
    apart = np.zeros(len(near), dtype=bool)
    for yaws in (np.full(len(near), box[2]), others[near, 2]):
        for turn in (0.0, np.pi / 2):
            axis = np.stack([np.cos(yaws + turn), np.sin(yaws + turn)], axis=-1)
            one = axis @ first.T
            two = np.einsum("ak,ack->ac", axis, second)
            apart |= (one.max(axis=1) <= two.min(axis=1)) | (two.max(axis=1) <= one.min(axis=1))
    result[near] = ~apart
    return result
