"""From scored masks to map elements: rescoring by mask quality, then accepting from the best down.

The mask-wise merging of Panoptic SegFormer (arXiv 2109.03814).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from opendrivevla_ros.perception.config import PerceptionConfig

IN_MASK = 0.5  # a mask holds the cells above this value


@dataclass(frozen=True)
class Ranking:
    """Candidates by falling score. order: int64 [K], the candidate at each rank. scores: [K], by rank."""

    order: Tensor
    scores: Tensor


def rank_masks(masks: Tensor, scores: Tensor) -> Ranking:
    """Multiply the scores [K] of masks [K, ...] by the squared mean value inside the mask, and sort."""
    inside = masks > IN_MASK
    total, area = (masks * inside).flatten(1).sum(1), inside.flatten(1).sum(1)
    ranked, order = (scores * (total / (area + 1)) ** 2).sort(descending=True, stable=True)
    return Ranking(order, ranked)


def merge_masks(
    masks: NDArray[np.bool_], labels: NDArray[np.int64], scores: NDArray[np.float32], config: PerceptionConfig
) -> tuple[list[int], NDArray[np.bool_]]:
    """Accept masks [K, n, n], sorted by falling score, that lie mostly where nothing was painted before.

    Returns the accepted ranks, and the cells that each class painted, bool [things, n, n]. A mask paints the cells
    that are not occupied, and occupies them. In the published code it does so by storing the class number, so that
    class 0 (divider) occupies nothing (T7).
    """
    painted = np.zeros((config.map_things, *masks.shape[1:]), dtype=bool)
    occupied = np.zeros(masks.shape[1:], dtype=bool)
    accepted: list[int] = []
    for rank in np.flatnonzero(scores >= config.mask_score):
        mask, label = masks[rank], labels[rank]
        area, free = np.count_nonzero(mask), mask & ~occupied
        if area == 0 or area - np.count_nonzero(free) > config.mask_overlap * area:
            continue
        painted[label] |= free
        if label != 0 or not config.quirks.divider_paints_nothing:
            occupied |= free
        accepted.append(int(rank))
    return accepted, painted
