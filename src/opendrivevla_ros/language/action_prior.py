"""What is known of a plan's actions before they are written: a proposed path, and how far off proposals are.

As in `number_prior`, the model's probability of an action is multiplied by the prior's (shallow fusion, arXiv
1503.03535), here in training too: what the model learns is where the prior is wrong.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import Array, wrap_angle
from opendrivevla_ros.language.action_codebook import ActionCodebook, placed_poses

LEAST_SCALE = 0.03  # metres: tokens of a codebook lie further apart
LEVER = 3.0  # metres: so far ahead of where it stands, a vehicle's heading tells as much as its position
DOUBT = 1e-3  # of the prior, spread over all actions: what it thinks impossible may still be done
STANDING = 0.3  # metres: from a shorter step no heading is read


class ActionPrior:
    """Laplace distributions of where the vehicle is after each action, around a proposed path.

    path: [K, 2] positions of base_link every half second, in base_link at t0, metres; of actions beyond the K-th
    nothing is known. errors: [K, 2] how far off such paths are on average, along x and y. Raises ValueError for other
    shapes, and for a path or errors that are not finite.
    """

    def __init__(self, codebook: ActionCodebook, path: ArrayLike, errors: ArrayLike) -> None:
        positions, self.errors = np.asarray(path, dtype=np.float64), np.asarray(errors, dtype=np.float64)
        if positions.ndim != 2 or positions.shape[1:] != (2,) or self.errors.shape != positions.shape:
            raise ValueError(f"a prior needs path and errors [K, 2], not {positions.shape} and {self.errors.shape}")
        if not (np.isfinite(positions).all() and np.isfinite(self.errors).all()):
            raise ValueError("a prior's path and errors must be finite")
        self._codebook = codebook
        self._centres = np.column_stack([positions, _headings(positions)])  # [K, 3]
        across = np.maximum(self.errors, LEAST_SCALE)
        self._scales = np.column_stack([across, across[:, 1] / LEVER])

    def log_shares(self, actions: Sequence[int]) -> Array:
        """Log probabilities [N] of the codebook's tokens after `actions`, the written ones; all 0 beyond the path."""
        step = len(actions)
        if step >= len(self._centres):
            return np.zeros(len(self._codebook))
        reached = self._codebook.decode(actions)[-1] if step else np.zeros(3)
        off = placed_poses(self._codebook.end_poses, reached) - self._centres[step]
        off[:, 2] = wrap_angle(off[:, 2])
        densities = -(np.abs(off) / self._scales[step]).sum(1)
        shares = np.exp(densities - densities.max())
        return np.log(shares / shares.sum() * (1 - DOUBT) + DOUBT / len(shares))


def _headings(path: Array) -> Array:
    """Heading [K] at each point: between those of the steps to it and from it, and as before where it stands."""
    steps = np.diff(path, axis=0, prepend=np.zeros((1, 2)))
    courses, course = [], 0.0
    for step in steps:
        if np.hypot(*step) >= STANDING:
            course = float(np.arctan2(step[1], step[0]))
        courses.append(course)
    halves = [float(wrap_angle(after - before)) / 2 for before, after in pairwise(courses)]
    return np.array(courses) + np.array([*halves, *(halves[-1:] or [0.0])])
