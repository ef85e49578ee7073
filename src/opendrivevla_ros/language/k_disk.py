"""A codebook of action tokens from how vehicles were driven: K-disk clustering (AutoVLA, arXiv 2506.13757)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.language.action_codebook import ActionCodebook, box_contours, contour_poses
from opendrivevla_ros.language.action_lattice import TOKEN_S, MotionLimits, arc

RADIUS_METRES = 0.05  # of a disk, mean distance of the corners
SLIP_METRES = 0.05  # at the end of a motion, off the arc of its heading
ROUNDING = 1e-6  # metres
HEADING_NOISE = 0.005  # rad, that odometry may have while the vehicle stands


@dataclass(frozen=True)
class Clustering:
    """infeasible: motions that no vehicle of these limits makes, which were left out. covered: share in a disk."""

    codebook: ActionCodebook
    motions: int
    infeasible: int
    covered: float


def feasible(poses: ArrayLike, limits: MotionLimits | None = None) -> NDArray[np.bool_]:
    """Whether a vehicle gets to poses [..., 3] in TOKEN_S within the limits [...].

    It must have come there on the arc of its heading, to SLIP_METRES: wheels do not go sideways.
    """
    limits = limits or MotionLimits()
    ends = np.asarray(poses, dtype=np.float64)
    direction = np.where(ends[..., 0] < 0, -1.0, 1.0)
    heading = ends[..., 2]
    distance = direction * np.hypot(ends[..., 0], ends[..., 1]) / np.sinc(heading / (2 * np.pi))
    slip = np.hypot(*np.moveaxis(ends[..., :2] - arc(distance, heading)[..., :2], -1, 0))
    turns = np.abs(heading) <= limits.heading(distance) + HEADING_NOISE
    farthest, back = limits.forward * TOKEN_S + ROUNDING, -limits.backward * TOKEN_S - ROUNDING
    fast = (distance <= farthest) & (distance >= back)
    finite = np.isfinite(ends).all(axis=-1)
    found: NDArray[np.bool_] = finite & turns & fast & (slip <= SLIP_METRES)
    return found


def k_disk(motions: ArrayLike, *, tokens: int = 2048, seed: int = 0, limits: MotionLimits | None = None) -> Clustering:
    """Clusters motions [N, 3], each the pose after TOKEN_S seen from the one before, into at most so many tokens.

    From what remains one motion is drawn, standstill first; all whose corners are within RADIUS_METRES of its on
    average form its disk, whose mean is a token, and the disk goes. The same seed gives the same codebook. Raises
    ValueError for another shape, fewer than one token, and where no motion is feasible.
    """
    ends = np.asarray(motions, dtype=np.float64)
    if ends.ndim != 2 or ends.shape[1] != 3:
        raise ValueError(f"motions must be poses [N, 3], not {list(ends.shape)}")
    if tokens < 1:
        raise ValueError(f"a codebook of {tokens} tokens says nothing; ask for 1 or more")
    kept = ends[feasible(ends, limits)]
    if len(kept) == 0:
        raise ValueError(f"none of {len(ends)} motions is one that a vehicle can make; check units and frames")
    random = np.random.default_rng(seed)
    remaining = box_contours(np.concatenate([np.zeros((1, 3)), kept]))  # standstill first, which a log may lack
    chosen: list[Array] = []
    picked = 0
    while len(remaining) and len(chosen) < tokens:
        apart = np.hypot(*np.moveaxis(remaining - remaining[picked], -1, 0)).mean(axis=-1)
        disk = apart <= RADIUS_METRES
        chosen.append(remaining[disk].mean(axis=0) if chosen else remaining[picked])
        remaining = remaining[~disk]
        picked = int(random.integers(max(len(remaining), 1)))
    return Clustering(
        codebook=ActionCodebook(box_contours(contour_poses(np.stack(chosen)))),
        motions=len(ends),
        infeasible=len(ends) - len(kept),
        covered=1 - len(remaining) / (len(kept) + 1),
    )
