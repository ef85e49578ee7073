"""How sure a written plan is: a covariance for each waypoint and one doubt, from samples and token probabilities.

The covariance is a signal to compare plans of one model with; `safety.uncertainty` makes a probability of the doubt.
"""

from collections.abc import Sequence

import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.plan import Doubt

FLOOR_METRES = 0.1  # the spread that even a sure plan keeps: waypoints are written in hundredths, roads are not
DOUBT_METRES_PER_SECOND = 1.0  # growth of the spread when the mean token probability goes to 0


def token_probability(log_probabilities: Array) -> float:
    """Geometric mean of the probabilities of the plan's decisions, [0, 1]; 1 where nothing was left to decide."""
    return float(np.exp(np.mean(log_probabilities))) if len(log_probabilities) else 1.0


def waypoint_covariance(waypoints: Array, times: Array, probability: float, errors: Array | None = None) -> Array:
    """[N, 2, 2] m^2, from waypoints [S, N, 2] of which the first row is the plan and the others are samples.

    times: [N] seconds. The samples' mean square distance from the plan, plus (FLOOR + DOUBT (1 - p) t)^2 on both axes,
    where p is the plan's token probability. errors: [K, 2] metres, how far off the first K waypoints of a plan like
    this are on average, and those after them by as much more as they are later; with them FLOOR^2 + 2 e^2 takes the
    second part's place (the variance of a Laplace distribution).
    """
    offsets = waypoints[1:] - waypoints[:1]
    spread = np.einsum("sni,snj->nij", offsets, offsets) / max(len(offsets), 1)
    if errors is not None:
        later = times[len(errors) :, None] / times[len(errors) - 1]
        errors = np.concatenate([errors, errors[-1] * later])
        return spread + (FLOOR_METRES**2 + 2 * errors**2)[:, None] * np.eye(2)
    floor = FLOOR_METRES + DOUBT_METRES_PER_SECOND * (1.0 - probability) * times
    return spread + (floor**2)[:, None, None] * np.eye(2)


def doubt(waypoints: Array, log_probabilities: Sequence[float] | Array, errors: Array | None = None) -> Doubt:
    """Of waypoints [S, N, 2] whose first row is the plan, and the log probabilities of the plan's decisions.

    errors: [K, 2] metres, how far off a plan like this is on average up to 3 s, where that is known.
    """
    distance = np.linalg.norm(waypoints[1:] - waypoints[:1], axis=-1)
    spread = float(distance.mean()) if distance.size else None
    expected = None if errors is None else float(np.hypot(*errors[-1]))
    return Doubt(token_probability(np.asarray(log_probabilities)), spread, expected)
