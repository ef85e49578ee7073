"""What training takes from any source: an observation, the motion that followed, and labels where there are any."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import MapElement

COVER_TOLERANCE_S = 0.06  # nuScenes' keyframes jitter by a sweep of the lidar: so far beyond an end counts as measured


@dataclass(frozen=True)
class AgentLabel:
    """A road user or object that was there, in base_link at t0.

    track_id: the same through all samples of a scene. label: a class of nuScenes' detection task. position: [3] box
    centre, m. size: length, width, height, m. velocity: [2] m/s, 0 where `velocity_known` is False. future: [6, 2]
    centres every 0.5 s, metres, 0 where future_mask [6] is False. points, visibility: how well it was measured and
    seen, as in nuScenes (visibility 1 to 4). attribute: nuScenes' word, or empty.
    """

    track_id: int
    label: str
    position: Array
    size: Array
    yaw: float
    velocity: Array
    velocity_known: bool
    future: Array
    future_mask: NDArray[np.bool_]
    points: int
    visibility: int
    attribute: str


@dataclass(frozen=True)
class DrivingSample:
    """One instant to learn from.

    index: its place in the scene; 0 means that whoever keeps memory forgets it first. future: [6, 3] x, y, yaw of
    base_link every 0.5 s, in base_link at t0, 0 where future_mask [6] is False. agents, map_elements: None where the
    source has no such labels, which is not the same as none in sight.
    """

    scene: str
    token: str
    index: int
    observation: Observation
    future: Array
    future_mask: NDArray[np.bool_]
    agents: tuple[AgentLabel, ...] | None = None
    map_elements: tuple[MapElement, ...] | None = None


def values_at(times: ArrayLike, values: Array, wanted: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    """values [N, D] at rising `times` [N] (seconds), at the times wanted [M]: [M, D], and which are covered [M].

    Linear between two times, and beyond an end by at most COVER_TOLERANCE_S; 0 where nothing covers a time.
    """
    known, asked = np.asarray(times, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    covered = (asked >= known[0] - COVER_TOLERANCE_S) & (asked <= known[-1] + COVER_TOLERANCE_S)
    if len(known) == 1:
        found = np.repeat(values, len(asked), axis=0)
    else:
        index = np.clip(np.searchsorted(known, asked) - 1, 0, len(known) - 2)
        fraction = (asked - known[index]) / (known[index + 1] - known[index])
        found = values[index] + fraction[:, None] * (values[index + 1] - values[index])
    return np.where(covered[:, None], found, 0.0), covered
