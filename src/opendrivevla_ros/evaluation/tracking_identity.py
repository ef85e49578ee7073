"""Identity switches: how often a true road user's track gets another number, as CLEAR MOT counts them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from opendrivevla_ros.core.plan import Agent
from opendrivevla_ros.datasets.driving_samples import AgentLabel

MATCH_METRES = 2.0
FAR = 1e6  # metres; stands for pairs that may not be

Sighting = tuple[Sequence[AgentLabel], Sequence[Agent]]


@dataclass(frozen=True)
class IdentityScores:
    """tracks: true road users with a measured point within range, one for each scene they are in.

    tracked: those matched once or more. switches: of all of them; switches_per_track: over `tracks`. recall: share
    of the true instants that are matched.
    """

    tracks: int
    tracked: int
    switches: int
    switches_per_track: float
    recall: float


def identity_scores(scenes: Iterable[Sequence[Sighting]], *, range_metres: float = 30.0) -> IdentityScores:
    """Figures of scenes, each a sequence in time of what was there and what was found, both in base_link.

    A pair is of one class and at most MATCH_METRES apart. A pair of the sample before stays while it is one; the
    rest are matched for the least sum of distances (Bernardin and Stiefelhagen, 2008, section 2.1.2).
    """
    tracks = tracked = switches = instants = matched = 0
    for scene in scenes:
        numbers: dict[int, int] = {}  # by true track, the id that it was last found under
        there: set[int] = set()
        for labels, agents in scene:
            seen = [label for label in labels if label.points > 0 and np.hypot(*label.position[:2]) < range_metres]
            there.update(label.track_id for label in seen)
            pairs = _pairs(seen, agents, numbers)
            switches += sum(numbers.get(true, number) != number for true, number in pairs.items())
            numbers.update(pairs)
            instants, matched = instants + len(seen), matched + len(pairs)
        tracks, tracked = tracks + len(there), tracked + len(numbers)
    return IdentityScores(
        tracks=tracks,
        tracked=tracked,
        switches=switches,
        switches_per_track=switches / tracks if tracks else 0.0,
        recall=matched / instants if instants else 0.0,
    )


def _pairs(labels: Sequence[AgentLabel], agents: Sequence[Agent], before: dict[int, int]) -> dict[int, int]:
    """Predicted ids by true ones."""
    if not labels or not agents:
        return {}
    true = np.array([label.position[:2] for label in labels])
    found = np.array([agent.position[:2] for agent in agents])
    cost = np.hypot(*np.moveaxis(true[:, None] - found, -1, 0))
    alike = np.array([[label.label == agent.label for agent in agents] for label in labels])
    cost = np.where(alike & (cost <= MATCH_METRES), cost, FAR)
    # a pair of before costs less than any other, so it stays where it is one at all
    kept = np.array([[before.get(label.track_id) == agent.track_id for agent in agents] for label in labels])
    cost = np.where(kept & (cost < FAR), cost - len(labels) * MATCH_METRES, cost)
    rows, columns = linear_sum_assignment(cost)
    return {
        labels[row].track_id: agents[column].track_id
        for row, column in zip(rows, columns, strict=True)
        if cost[row, column] < FAR / 2
    }
