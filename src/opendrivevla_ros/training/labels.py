"""What perception learns from: labelled boxes and map elements of one frame, as tensors in the lidar frame."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from opendrivevla_ros.perception.tracks import BOX_CODE
from opendrivevla_ros.training.errors import TrainingError

LINE_POINTS = 12  # that tell a map element's shape


@dataclass(frozen=True)
class BoxLabels:
    """T objects of one frame.

    ids: int64 [T], the same through all frames of a scene. classes: int64 [T] in AGENT_CLASSES. codes: [T, 10] box
    codes (see `encode_boxes`). velocity_known: bool [T]. future: [T, 6, 2] how far the centre will be from where it is
    now, every 0.5 s, metres; future_known: bool [T, 6]. Raises TrainingError for lengths that differ, an id that
    occurs twice, and numbers that are not finite.
    """

    ids: Tensor
    classes: Tensor
    codes: Tensor
    velocity_known: Tensor
    future: Tensor
    future_known: Tensor

    def __post_init__(self) -> None:
        count = len(self.ids)
        lengths = {len(getattr(self, field.name)) for field in fields(self)}
        if self.codes.shape != (count, BOX_CODE) or lengths != {count}:
            shapes = {field.name: list(getattr(self, field.name).shape) for field in fields(self)}
            raise TrainingError(f"box labels need one row an object and {BOX_CODE} numbers a code, not {shapes}")
        if len(self.ids.unique()) != count:
            raise TrainingError(f"box labels name an object twice: their ids are {self.ids.tolist()}")
        finite = self.codes.isfinite().all(1) & self.future.isfinite().flatten(1).all(1)
        if not finite.all():
            wrong = self.ids[~finite].tolist()
            raise TrainingError(f"the box labels of objects {wrong} hold numbers that are not finite; leave them out")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, rows: Tensor) -> "BoxLabels":
        """The given objects, in that order."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def to(self, device: torch.device | str) -> "BoxLabels":
        """The same on a device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True)
class PlanLabel:
    """What the ego did next.

    ego: [EGO_NUMBERS] its motion and command, see `perception_input.ego_numbers`. path: [6, 2] positions of the lidar
    origin every 0.5 s, lidar frame, metres; known: bool [6].
    """

    ego: Tensor
    path: Tensor
    known: Tensor

    def to(self, device: torch.device | str) -> "PlanLabel":
        """The same on a device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True)
class MapLabels:
    """E map elements of one frame on the BEV grid of n x n cells (row 0 rear, column 0 left).

    classes: int64 [E] in MAP_CLASSES, the things only. lines: [E, LINE_POINTS, 2], even points along each, metres in
    the lidar frame. masks: bool [E, n, n], none of them empty. drivable: bool [n, n]. Raises TrainingError for other
    shapes and for an empty mask.
    """

    classes: Tensor
    lines: Tensor
    masks: Tensor
    drivable: Tensor

    def __post_init__(self) -> None:
        if self.masks.shape != (len(self.classes), *self.drivable.shape):
            raise TrainingError(
                f"map labels need one mask an element on the grid {list(self.drivable.shape)}, not"
                f" {len(self.classes)} classes and masks {list(self.masks.shape)}"
            )
        if self.lines.shape != (len(self.classes), LINE_POINTS, 2):
            raise TrainingError(
                f"map labels need {LINE_POINTS} points of x and y for each of {len(self.classes)} elements, not"
                f" {list(self.lines.shape)}"
            )
        if not self.masks.flatten(1).any(1).all():
            raise TrainingError("a map label has an empty mask; leave out what lies outside the grid")

    def __len__(self) -> int:
        return len(self.classes)

    def to(self, device: torch.device | str) -> "MapLabels":
        """The same on a device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def boxes(self) -> Tensor:
        """[E, 4] the masks' bounding boxes cx, cy, w, h in [0, 1]; x along the columns, y along the rows."""
        side = self.masks.shape[-1]
        spans = []
        for occupied in (self.masks.any(1), self.masks.any(2)):  # columns, rows: [E, n]
            first = occupied.int().argmax(1)
            last = side - occupied.flip(1).int().argmax(1)
            spans.append(((first + last) / (2 * side), (last - first) / side))
        (cx, width), (cy, height) = spans
        return torch.stack([cx, cy, width, height], dim=1)


def encode_boxes(boxes: Tensor) -> Tensor:
    """Boxes [T, 9] (cx, cy, cz, w, l, h, yaw, vx, vy) as the codes [T, 10] that the track head predicts.

    The code is DETR3D's (arXiv 2110.06922): cx, cy, log w, log l, cz, log h, sin yaw, cos yaw, vx, vy. The inverse of
    `perception.tracker.decode_boxes`.
    """
    cx, cy, cz, width, length, height, yaw, vx, vy = boxes.unbind(-1)
    return torch.stack([cx, cy, width.log(), length.log(), cz, height.log(), yaw.sin(), yaw.cos(), vx, vy], dim=-1)
