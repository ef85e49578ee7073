"""The losses of perception: tracks, map elements and masks, and the dense ones that get a BEV started."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from opendrivevla_ros.perception.config import AGENT_CLASSES
from opendrivevla_ros.perception.map_merge import IN_MASK
from opendrivevla_ros.perception.tracks import UNTRACKED
from opendrivevla_ros.training.labels import BoxLabels, MapLabels
from opendrivevla_ros.training.matching import (
    BOX_WEIGHT,
    CLASS_WEIGHT,
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    MAP_BOX_WEIGHT,
    MAP_OVERLAP_WEIGHT,
    Matching,
    generalised_overlap,
    match_map,
    match_tracks,
)

# Of cx, cy, log w, log l, cz, log h, sin, cos, vx, vy. The published weights (DETR3D, arXiv 2110.06922) are 1, and 0.2
# for velocity; here size and heading, which are small numbers beside metres, are twice as heavy, and velocity, which
# planning needs, as heavy as the rest.
CODE_WEIGHTS = (1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0)
VELOCITY_BEND = 5.0  # m/s, below which a velocity's error counts by its square
MASK_CROSS_ENTROPY_WEIGHT = 3.0  # beside a dice loss of weight 1
MASK_SHARPNESS = 8.0  # logits per unit of mask: 0 and 1 become probabilities of 0.02 and 0.98
# What finding an object counts, by class, in the order of AGENT_CLASSES. A street has ten cars for every pedestrian;
# counted alike, nothing but cars was found after 20,000 frames.
FOUND_WEIGHTS = (1.0, *[3.0] * (len(AGENT_CLASSES) - 1))
_VELOCITY = slice(8, 10)


def focal_loss(logits: Tensor, targets: Tensor, found_weights: Sequence[float] = (1.0,)) -> Tensor:
    """Sum over all entries of -alpha_t (1 - p_t)^gamma log(p_t) (RetinaNet, arXiv 1708.02002, equation 5).

    logits, targets: the same shape [N, classes], targets 0 or 1. found_weights: of the entries whose target is 1, for
    all classes or one for each.
    """
    logits, targets = logits.float(), targets.float()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    missing = p + targets - 2 * p * targets  # 1 - p_t
    alpha = FOCAL_ALPHA * targets * logits.new_tensor(found_weights) + (1 - FOCAL_ALPHA) * (1 - targets)
    return (alpha * missing**FOCAL_GAMMA * cross_entropy).sum()


def box_loss(codes: Tensor, labels: Tensor, velocity_known: Tensor) -> Tensor:
    """Sum of weighted errors of codes [M, 10]; a velocity counts where it is known [M].

    Errors are absolute, a velocity's smooth: most cars are parked, and the absolute error would be content to call
    all of them that.
    """
    weights = codes.new_tensor(CODE_WEIGHTS).expand(len(codes), -1).clone()
    weights[:, _VELOCITY] *= velocity_known[:, None]
    errors = (codes - labels).abs()
    velocities = F.smooth_l1_loss(codes[:, _VELOCITY], labels[:, _VELOCITY], reduction="none", beta=VELOCITY_BEND)
    return (weights * torch.cat([errors[:, : _VELOCITY.start], velocities], 1)).sum()


def track_losses(
    logits: Tensor,
    codes: Tensor,
    objects: Tensor,
    labels: BoxLabels,
) -> tuple[dict[str, Tensor], Matching]:
    """Class and box losses of all decoder layers, each matched on its own, and the last layer's matching.

    logits: [layers, Q, classes]. codes: [layers, Q, 10]. objects: [Q], see `match_tracks`; a query that takes no part
    adds no loss. The losses are summed over layers and divided by the number of labels, as in DETR3D
    (arXiv 2110.06922, section 3.3) and in each frame of UniAD.
    """
    count = max(len(labels), 1)
    taking_part = objects >= UNTRACKED
    classes = boxes = logits.new_zeros(())
    matching = match_tracks(logits[-1], codes[-1], objects, labels)
    for layer, (layer_logits, layer_codes) in enumerate(zip(logits, codes, strict=True)):
        last = layer == len(logits) - 1
        pairs = matching if last else match_tracks(layer_logits, layer_codes, objects, labels)
        targets = _class_targets(layer_logits, pairs, labels.classes)
        classes = classes + focal_loss(layer_logits[taking_part], targets[taking_part], FOUND_WEIGHTS) / count
        known = labels.velocity_known[pairs.labels]
        errors = box_loss(layer_codes[pairs.queries].float(), labels.codes[pairs.labels], known)
        boxes = boxes + errors / count
    return {"track_class": CLASS_WEIGHT * classes, "track_box": BOX_WEIGHT * boxes}, matching


def map_query_losses(logits: Tensor, boxes: Tensor, labels: MapLabels) -> tuple[dict[str, Tensor], Matching]:
    """Class and box losses of all map decoder layers, each matched on its own, and the last layer's matching.

    logits: [layers, Q, things]. boxes: [layers, Q, 4] cx, cy, w, h in [0, 1]. Panoptic SegFormer (arXiv 2109.03814,
    section 3.4) takes these losses from Deformable DETR. Summed over layers, divided by the number of elements.
    """
    count = max(len(labels), 1)
    wanted = labels.boxes()
    classes = errors = logits.new_zeros(())
    matching = match_map(logits[-1], boxes[-1], labels)
    for layer, (layer_logits, layer_boxes) in enumerate(zip(logits, boxes, strict=True)):
        last = layer == len(logits) - 1
        pairs = matching if last else match_map(layer_logits, layer_boxes, labels)
        classes = classes + focal_loss(layer_logits, _class_targets(layer_logits, pairs, labels.classes)) / count
        found, target = layer_boxes[pairs.queries].float(), wanted[pairs.labels]
        distance = (found - target).abs().sum()
        separation = (1 - generalised_overlap(found, target)).sum()
        errors = errors + (MAP_BOX_WEIGHT * distance + MAP_OVERLAP_WEIGHT * separation) / count
    return {"map_class": CLASS_WEIGHT * classes, "map_box": errors}, matching


def mask_loss(masks: Tensor, targets: Tensor) -> Tensor:
    """Three times the cross-entropy plus the dice loss of masks [M, S] against bool targets [M, S], mean over M.

    masks are the map head's: not negative, not bounded, inside above IN_MASK. They become logits by their distance to
    it, so that the gradient reaches values above 1 too; a mask of exactly 0 and 1 keeps a cross-entropy of 0.018.
    0 where there is no mask.
    """
    if len(masks) == 0:
        return masks.sum()
    logits = MASK_SHARPNESS * (masks.float() - IN_MASK)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets.float())
    return MASK_CROSS_ENTROPY_WEIGHT * cross_entropy + dice_loss(masks, targets).mean()


def dice_loss(masks: Tensor, targets: Tensor) -> Tensor:
    """[M] one minus the dice coefficient with squares, 2 sum(a b) / (sum(a^2) + sum(b^2)) (V-Net, arXiv 1606.04797).

    masks: [M, S], not negative. 0 where both are empty.
    """
    masks, targets = masks.float(), targets.float()
    shared = (masks * targets).sum(1)
    return 1 - (2 * shared + 1e-4) / ((masks**2).sum(1) + (targets**2).sum(1) + 1e-4)


def occupancy_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of BEV channels [K, n, n] against bool targets [K, n, n]."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float())


def heatmap_target(labels: BoxLabels, *, classes: int, size: int, range_metres: Sequence[float]) -> Tensor:
    """[classes, n, n]: a Gaussian of height 1 at the cell of each centre, the larger one where two overlap.

    Its deviation grows with the object, as in CenterNet (arXiv 1904.07850, section 3): half the side of the square of
    the same area, and at least one cell. range_metres: as `PerceptionConfig.range_metres`.
    """
    lowest, cell = labels.codes.new_tensor(range_metres[:2]), (range_metres[3] - range_metres[0]) / size
    places = (labels.codes[:, :2] - lowest) / cell
    rows = torch.arange(size, device=places.device)
    target = places.new_zeros(classes, size, size)
    inside = ((places >= 0) & (places < size)).all(1)
    for index in inside.nonzero()[:, 0].tolist():
        deviation = max(float(labels.codes[index, 2:4].sum().div(2).exp()) / 2 / cell, 1.0)
        column, row = places[index].floor()
        gaussian = torch.exp(-((rows[None] - column) ** 2 + (rows[:, None] - row) ** 2) / (2 * deviation**2))
        channel = int(labels.classes[index])
        target[channel] = torch.maximum(target[channel], gaussian)
    return target


def heatmap_loss(logits: Tensor, targets: Tensor, found_weights: Sequence[float] = (1.0,)) -> Tensor:
    """The penalty-reduced focal loss of centres, by number of centres (CornerNet, arXiv 1808.01244, equation 1).

    logits, targets: [classes, n, n], targets of `heatmap_target`; exponents 2 and 4, as in CenterPoint
    (arXiv 2006.11275). found_weights: of the centres, for all classes or one for each.
    """
    logits = logits.float()
    p = logits.sigmoid()
    centres = targets == 1
    positive = logits.new_tensor(found_weights)[:, None, None] * (1 - p) ** 2 * F.logsigmoid(logits)
    negative = (1 - targets) ** 4 * p**2 * F.logsigmoid(-logits)
    return -torch.where(centres, positive, negative).sum() / centres.sum().clamp(min=1)


def _class_targets(logits: Tensor, pairs: Matching, classes: Tensor) -> Tensor:
    """[Q, classes] with a one where a matched query has its label's class."""
    targets = torch.zeros_like(logits, dtype=torch.float32)
    targets[pairs.queries, classes[pairs.labels]] = 1.0
    return targets
