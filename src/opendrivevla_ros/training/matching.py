"""Which query answers for which label: bipartite matching, and tracks that keep the object they follow."""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from opendrivevla_ros.perception.tracks import UNTRACKED
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import BoxLabels, MapLabels

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0  # RetinaNet, arXiv 1708.02002, section 5.1
CLASS_WEIGHT, BOX_WEIGHT = 2.0, 0.25  # of tracks: DETR3D, arXiv 2110.06922, and UniAD, arXiv 2212.10156
MAP_BOX_WEIGHT, MAP_OVERLAP_WEIGHT = 5.0, 2.0  # of map elements' boxes: DETR, arXiv 2005.12872, section A.4
_BOX_WITHOUT_VELOCITY = 8  # entries of the box code that the matching looks at, as published


@dataclass(frozen=True)
class Matching:
    """M pairs: queries [M] and labels [M], int64 rows of either side, each at most once."""

    queries: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.queries)


@torch.no_grad()
def match_tracks(logits: Tensor, codes: Tensor, objects: Tensor, labels: BoxLabels) -> Matching:
    """Matches Q track queries to labels; logits [Q, classes], codes [Q, 10].

    objects: int64 [Q], the label id that a carried query follows, UNTRACKED for a fresh query, any other negative
    number for a query that takes no part. A carried query keeps its object, and matches nothing once that is gone;
    fresh queries share out the objects that nobody follows (MOTR, arXiv 2105.03247, section 3.3).
    """
    carried = (objects[:, None] == labels.ids) & (objects >= 0)[:, None]  # [Q, T]
    kept_queries, kept_labels = carried.nonzero().unbind(1)
    fresh = (objects == UNTRACKED).nonzero()[:, 0]
    newcomers = (~carried.any(0)).nonzero()[:, 0]
    cost = CLASS_WEIGHT * class_cost(logits[fresh], labels.classes[newcomers])
    cost += BOX_WEIGHT * torch.cdist(
        codes[fresh, :_BOX_WITHOUT_VELOCITY].float(), labels.codes[newcomers, :_BOX_WITHOUT_VELOCITY].float(), p=1
    )
    found = assign(cost)
    return Matching(torch.cat([kept_queries, fresh[found.queries]]), torch.cat([kept_labels, newcomers[found.labels]]))


@torch.no_grad()
def match_map(logits: Tensor, boxes: Tensor, labels: MapLabels) -> Matching:
    """Matches Q map queries to elements by class and box; logits [Q, things], boxes [Q, 4] (cx, cy, w, h)."""
    wanted = labels.boxes()
    cost = CLASS_WEIGHT * class_cost(logits, labels.classes)
    cost += MAP_BOX_WEIGHT * torch.cdist(boxes.float(), wanted, p=1)
    return assign(cost - MAP_OVERLAP_WEIGHT * generalised_overlap(boxes[:, None].float(), wanted[None]))


def class_cost(logits: Tensor, classes: Tensor) -> Tensor:
    """[Q, T] what the focal loss would change by if query q had the class of label t (Deformable DETR's cost)."""
    p = logits.float().sigmoid().clamp(1e-8, 1 - 1e-7)
    positive = FOCAL_ALPHA * (1 - p) ** FOCAL_GAMMA * -p.log()
    negative = (1 - FOCAL_ALPHA) * p**FOCAL_GAMMA * -(1 - p).log()
    return (positive - negative)[:, classes]


def generalised_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Generalised intersection over union of boxes [..., 4] (cx, cy, w, h), in (-1, 1] (arXiv 1902.09630)."""
    (low, high), (other_low, other_high) = _corners(first), _corners(second)
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(-1)
    union = (high - low).prod(-1) + (other_high - other_low).prod(-1) - shared
    hull = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).prod(-1)
    return shared / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def assign(cost: Tensor) -> Matching:
    """The pairs of least total cost [Q, T]. Raises TrainingError where a cost is not finite."""
    if not cost.isfinite().all():
        raise TrainingError("a prediction is not finite, so it matches no label; lower the learning rate")
    queries, labels = linear_sum_assignment(cost.cpu().numpy())
    return Matching(torch.from_numpy(queries).to(cost.device), torch.from_numpy(labels).to(cost.device))


def _corners(box: Tensor) -> tuple[Tensor, Tensor]:
    centre, size = box.split(2, dim=-1)
    return centre - size / 2, centre + size / 2
