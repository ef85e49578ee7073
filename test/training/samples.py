"""Labels for the tests of losses and matching."""

import torch

from opendrivevla_ros.perception.ego_query import EGO_NUMBERS
from opendrivevla_ros.training.labels import LINE_POINTS, BoxLabels, MapLabels, PlanLabel, encode_boxes
from opendrivevla_ros.training.token_reader import WAYPOINTS


def box_labels(count: int, *, seed: int = 0, first_id: int = 10) -> BoxLabels:
    """Objects well apart from one another, with ids from `first_id`."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 9, generator=generator) + 1.0
    boxes[:, 0] = torch.arange(count) * 5.0 - 15.0
    return BoxLabels(
        ids=torch.arange(first_id, first_id + count),
        classes=torch.randint(10, (count,), generator=generator),
        codes=encode_boxes(boxes),
        velocity_known=torch.ones(count, dtype=torch.bool),
        future=torch.rand(count, 6, 2, generator=generator),
        future_known=torch.ones(count, 6, dtype=torch.bool),
    )


def map_labels(side: int = 8) -> MapLabels:
    """A line along column 1 of class 0, and a rectangle (rows 4 to 7, columns 3 to 4) of class 2."""
    masks = torch.zeros(2, side, side, dtype=torch.bool)
    masks[0, :, 1] = True
    masks[1, 4:8, 3:5] = True
    drivable = torch.zeros(side, side, dtype=torch.bool)
    drivable[:, :6] = True
    lines = torch.stack([torch.linspace(-4, 4, LINE_POINTS)] * 2, 1).repeat(2, 1, 1)
    return MapLabels(classes=torch.tensor([0, 2]), lines=lines, masks=masks, drivable=drivable)


def plan_label() -> PlanLabel:
    """A drive straight ahead at 8 m/s."""
    path = torch.stack([torch.zeros(WAYPOINTS), 4.0 * torch.arange(1, WAYPOINTS + 1)], 1)
    return PlanLabel(ego=torch.full((EGO_NUMBERS,), 0.5), path=path, known=torch.ones(WAYPOINTS, dtype=torch.bool))
