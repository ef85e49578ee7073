"""Action tokens: a motion of the vehicle as a sequence of ids of short motions, half a second each.

Source: AutoVLA (arXiv 2506.13757), action tokens. A token is where a vehicle's box ends, seen from the pose before:
x forward, y left, metres; headings in radians. All arithmetic is float64.
"""

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from opendrivevla_ros.core.geometry import Array

BOX_LENGTH, BOX_WIDTH = 4.8, 2.0
LEFT_FRONT, RIGHT_FRONT, RIGHT_REAR, LEFT_REAR = range(4)
CANDIDATES = 16  # tokens that are looked at before all are


def box_contours(poses: ArrayLike, *, length: float = BOX_LENGTH, width: float = BOX_WIDTH) -> Array:
    """Corners [..., 4, 2] (left front, right front, right rear, left rear) of boxes centred at poses [..., 3]."""
    corners = np.array([[length, width], [length, -width], [-length, -width], [-length, width]]) / 2
    return _placed(corners, np.asarray(poses, dtype=np.float64))


def contour_poses(contours: ArrayLike) -> Array:
    """Poses [..., 3] (x, y, heading) of contours [..., 4, 2].

    The position is the mean of the corners, the heading the direction from left rear to left front, (-pi, pi].
    """
    contours = np.asarray(contours, dtype=np.float64)
    side = contours[..., LEFT_FRONT, :] - contours[..., LEFT_REAR, :]
    return np.concatenate([contours.mean(axis=-2), np.arctan2(side[..., 1:], side[..., :1])], axis=-1)


def placed_poses(poses: ArrayLike, reached: ArrayLike) -> Array:
    """Poses [N, 3] seen from a pose `reached` [3], in the frame that this one is in; headings are not wrapped."""
    seen, start = np.asarray(poses, dtype=np.float64), np.asarray(reached, dtype=np.float64)
    return np.concatenate([_placed(seen[:, :2], start), seen[:, 2:] + start[2]], axis=-1)


@dataclass(frozen=True)
class ActionCodebook:
    """contours: [N, 4, 2], where the box of `length` x `width` metres ends after each of the N tokens.

    Raises ValueError for contours that are none, of another shape, or not finite.
    """

    contours: Array
    length: float = BOX_LENGTH
    width: float = BOX_WIDTH

    def __post_init__(self) -> None:
        contours = np.asarray(self.contours, dtype=np.float64)
        if contours.ndim != 3 or contours.shape[1:] != (4, 2) or len(contours) == 0:
            raise ValueError(f"a codebook needs contours [N, 4, 2] with N > 0, not {list(contours.shape)}")
        if not np.isfinite(contours).all():
            raise ValueError("the codebook's contours must be finite; build it again from finite motions")
        object.__setattr__(self, "contours", contours)

    def __len__(self) -> int:
        return len(self.contours)

    def save(self, path: Path) -> None:
        """Writes the codebook as an .npz file."""
        np.savez(path, contours=self.contours, box_length_width=np.array([self.length, self.width]))

    @classmethod
    def load(cls, path: Path) -> "ActionCodebook":
        """Of an .npz file. Raises ValueError for one that holds no codebook, OSError for one that cannot be read."""
        try:
            with np.load(path) as archive:
                length, width = archive["box_length_width"]
                return cls(archive["contours"], float(length), float(width))
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} holds no action codebook ({error}); build it again with `odv codebook`"
            ) from None

    @cached_property
    def end_poses(self) -> Array:
        """Pose [N, 3] (x, y, heading) at the end of each token, seen from its start."""
        return contour_poses(self.contours)

    def encode(self, trajectories: ArrayLike) -> NDArray[np.int64]:
        """Ids [..., T] of trajectories [..., T, 3]: poses at the end of each half second, seen from the start.

        At each step the token whose contour ends nearest the true one (smallest sum of four corner distances, the
        lowest id of several), seen from the pose reached by the tokens before, so that errors are corrected and do
        not add up. Raises ValueError for no poses, another shape, or values that are not finite.
        """
        poses = np.asarray(trajectories, dtype=np.float64)
        if poses.ndim < 2 or poses.shape[-1] != 3 or poses.size == 0:
            raise ValueError(f"trajectories must be poses [..., T, 3] with T > 0, not {list(poses.shape)}")
        if not np.isfinite(poses).all():
            count = int((~np.isfinite(poses)).sum())
            raise ValueError(f"trajectories hold {count} values that are not finite; leave them out")
        targets = box_contours(poses, length=self.length, width=self.width)
        ids = np.zeros(poses.shape[:-1], dtype=np.int64)
        reached = np.zeros((*poses.shape[:-2], 3))
        for step in range(poses.shape[-2]):
            seen = _seen_from(targets[..., step, :, :], reached)
            ids[..., step] = self._nearest(seen.reshape(-1, 4, 2)).reshape(ids.shape[:-1])
            reached = self._advanced(reached, ids[..., step])
        return ids

    def decode(self, ids: ArrayLike) -> Array:
        """Poses [..., T, 3] (x, y, heading) that ids [..., T] lead to, seen from the start; heading in (-pi, pi].

        Raises ValueError for no ids, ids that are not whole numbers, or ids outside the codebook.
        """
        tokens = np.asarray(ids)
        if tokens.ndim == 0 or tokens.size == 0 or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(
                f"action ids must be integers [..., T] with T > 0, not {tokens.dtype}{list(tokens.shape)}"
            )
        outside = tokens[(tokens < 0) | (tokens >= len(self))]
        if outside.size:
            raise ValueError(f"action id {outside[0]} is outside the codebook; ids run from 0 to {len(self) - 1}")
        poses = np.zeros((*tokens.shape, 3))
        reached = np.zeros((*tokens.shape[:-1], 3))
        for step in range(tokens.shape[-1]):
            reached = poses[..., step, :] = self._advanced(reached, tokens[..., step])
        return poses

    def _nearest(self, contours: Array) -> NDArray[np.int64]:
        """Ids [N] of the tokens that end nearest to contours [N, 4, 2].

        The sum of four distances is no less than the root of the sum of their squares, by which a tree finds
        neighbours: the nearest of its candidates is the nearest of all, unless one that the tree left out could be
        nearer. Where that is so, all are compared.
        """
        count = min(CANDIDATES, len(self))
        found = self._tree.query(contours.reshape(-1, 8), k=np.arange(1, count + 1))
        bounds, candidates = (np.asarray(part) for part in found)
        candidates = np.sort(candidates, axis=1)
        distances = _distances(contours[:, None], self.contours[candidates])
        best = distances.argmin(axis=1)[:, None]
        ids = np.take_along_axis(candidates, best, axis=1)[:, 0].astype(np.int64)
        if count < len(self):
            unsure = np.flatnonzero(np.take_along_axis(distances, best, axis=1)[:, 0] >= bounds[:, -1])
            for some in np.array_split(unsure, len(unsure) * len(self) // (1 << 20) + 1):
                ids[some] = _distances(contours[some][:, None], self.contours).argmin(axis=1)
        return ids

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.contours.reshape(-1, 8))

    def _advanced(self, poses: Array, ids: NDArray[np.int64]) -> Array:
        """Poses [..., 3] after one more token each."""
        return contour_poses(_placed(self.contours[ids], poses))


def _distances(contours: Array, others: Array) -> Array:
    """Sums [...] of the distances of corresponding corners of contours [..., 4, 2]."""
    offsets = contours - others
    return np.hypot(offsets[..., 0], offsets[..., 1]).sum(axis=-1)


def _placed(corners: Array, poses: Array) -> Array:
    """Corners [..., 4, 2], seen from poses [..., 3], in the frame of the poses."""
    cosine, sine = np.cos(poses[..., 2, None]), np.sin(poses[..., 2, None])
    x, y = corners[..., 0], corners[..., 1]
    turned = np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1)
    return turned + poses[..., None, :2]


def _seen_from(corners: Array, poses: Array) -> Array:
    """Corners [..., 4, 2] of the frame of the poses [..., 3], seen from the poses."""
    cosine, sine = np.cos(poses[..., 2, None]), np.sin(poses[..., 2, None])
    offset = corners - poses[..., None, :2]
    x, y = offset[..., 0], offset[..., 1]
    return np.stack([cosine * x + sine * y, -sine * x + cosine * y], axis=-1)
