"""The vehicle's body and the road users around it, as boxes, and where the one meets the others."""

from dataclasses import dataclass, field

import numpy as np

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.core.geometry import Array, distances_along


@dataclass(frozen=True)
class Body:
    """What of the vehicle is in front of base_link, behind it and to either side, metres."""

    front: float
    rear: float
    half_width: float

    def boxes(self, poses: Array, margin: float = 0.0) -> Array:
        """[..., 5] boxes (x, y, yaw, length, width) of the vehicle at poses [..., 3] of base_link."""
        ahead = (self.front - self.rear) / 2
        x = poses[..., 0] + ahead * np.cos(poses[..., 2])
        y = poses[..., 1] + ahead * np.sin(poses[..., 2])
        length = np.full(x.shape, self.front + self.rear + 2 * margin)
        return np.stack([x, y, poses[..., 2], length, np.full(x.shape, 2 * (self.half_width + margin))], axis=-1)


@dataclass(frozen=True)
class Movers:
    """A road users in base_link now, and where they are expected.

    boxes: [A, 5] x, y, yaw, length, width now. velocity: [A, 2] m/s. times: [K] seconds from now, rising; paths:
    [A, K, 2] their middles then. Before the first and behind the last time they keep their velocity.
    """

    boxes: Array = field(default_factory=lambda: np.zeros((0, 5)))
    velocity: Array = field(default_factory=lambda: np.zeros((0, 2)))
    times: Array = field(default_factory=lambda: np.zeros(0))
    paths: Array = field(default_factory=lambda: np.zeros((0, 0, 2)))

    def __len__(self) -> int:
        return len(self.boxes)

    def at(self, times: Array) -> Array:
        """[A, T, 5] the boxes at times [T], seconds from now, not below 0. Headings stay."""
        known = np.concatenate([[0.0], self.times])
        places = np.concatenate([self.boxes[:, None, :2], self.paths.reshape(len(self), -1, 2)], axis=1)  # [A, K + 1]
        step = np.clip(np.searchsorted(known, times, side="right"), 1, max(len(known) - 1, 1)) - 1
        following = np.minimum(step + 1, len(known) - 1)
        span = np.where(following > step, known[following] - known[step], 1.0)
        share = np.clip((times - known[step]) / span, 0.0, 1.0)[:, None]
        middles = places[:, step] * (1 - share) + places[:, following] * share
        beyond = np.maximum(times - known[-1], 0.0)
        middles = middles + self.velocity[:, None] * beyond[:, None]
        rest = np.broadcast_to(self.boxes[:, None, 2:], (len(self), len(times), 3))
        return np.concatenate([middles, rest], axis=-1)


def free_way(poses: Array, movers: Movers, body: Body, margin: float) -> Array:
    """[A] metres along poses [T, 3] of base_link until the vehicle meets each road user where it is now; or inf."""
    along = distances_along(poses[:, :2])
    met = overlaps(body.boxes(poses, margin)[:, None], movers.boxes[None])  # [T, A]
    return np.where(met.any(axis=0), along[met.argmax(axis=0)], np.inf)


def own_stops(poses: Array, free: Array, movers: Movers, hard_braking: float) -> Array:
    """[A] metres that each road user goes on along poses [T, 3] if it brakes hard; 0 for who comes towards them."""
    along = distances_along(poses[:, :2])
    headings = np.interp(np.minimum(free, along[-1]), along, np.unwrap(poses[:, 2]))
    pace = np.sum(movers.velocity * np.column_stack([np.cos(headings), np.sin(headings)]), axis=1)
    return np.maximum(pace, 0.0) ** 2 / (2 * hard_braking)
