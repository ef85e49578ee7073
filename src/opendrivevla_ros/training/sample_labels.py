"""A sample's agents and map elements, in base_link, as what perception learns from, in the lidar frame."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from opendrivevla_ros.core.geometry import Array, apply, invert
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.datasets.driving_samples import AgentLabel
from opendrivevla_ros.perception.config import AGENT_CLASSES, MAP_CLASSES, PerceptionConfig
from opendrivevla_ros.perception.map_polylines import AREA_CLASSES
from opendrivevla_ros.perception.tracks import BOX_CODE
from opendrivevla_ros.policies.opendrivevla.frames import box_to_lidar
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import BoxLabels, MapLabels, encode_boxes

DRIVABLE = MAP_CLASSES[-1]
SUBCELL_BITS = 4  # cv2 draws at sixteenths of a cell


def box_labels(agents: Sequence[AgentLabel], lidar_to_base: Array, config: PerceptionConfig) -> BoxLabels:
    """The agents that a sensor measured and that stand within the perceived range.

    As in the published training, which leaves out what has no lidar or radar point. Raises TrainingError for a class
    that the network does not have, and for numbers that are not finite.
    """
    low, high = np.array(config.range_metres).reshape(2, 3)[:, :2]
    boxes, kept = [], []
    for agent in agents:
        if agent.label not in AGENT_CLASSES:
            raise TrainingError(f"agent {agent.track_id} is a {agent.label!r}; the classes are {AGENT_CLASSES}")
        box = box_to_lidar(agent.position, agent.size, agent.yaw, agent.velocity, lidar_to_base)
        if not np.isfinite(box).all():
            raise TrainingError(f"agent {agent.track_id} has a label that is not finite: {box.round(2).tolist()}")
        if agent.points > 0 and ((low < box[:2]) & (box[:2] < high)).all():
            boxes.append(box)
            kept.append(agent)
    codes = encode_boxes(torch.from_numpy(np.stack(boxes)).float()) if boxes else torch.zeros(0, BOX_CODE)
    return BoxLabels(
        ids=torch.tensor([agent.track_id for agent in kept], dtype=torch.int64),
        classes=torch.tensor([AGENT_CLASSES.index(agent.label) for agent in kept], dtype=torch.int64),
        codes=codes,
        velocity_known=torch.tensor([agent.velocity_known for agent in kept], dtype=torch.bool),
    )


def map_labels(elements: Sequence[MapElement], lidar_to_base: Array, config: PerceptionConfig) -> MapLabels:
    """The elements on the BEV grid: lines one cell wide, crossings filled; nothing outside the grid.

    The drivable area is given by closed rings; a ring inside another is a hole. Raises TrainingError for a class that
    the network does not have, and for points that are not finite.
    """
    side, classes, masks = config.bev_size, [], []
    rings = []
    for element in elements:
        if element.label not in MAP_CLASSES:
            raise TrainingError(f"a map element is a {element.label!r}; the classes are {MAP_CLASSES}")
        cells = _cells(element, lidar_to_base, config)
        if element.label == DRIVABLE:
            rings.append(cells)
            continue
        mask = np.zeros((side, side), np.uint8)
        if element.label in AREA_CLASSES:
            cv2.fillPoly(mask, [cells], 1, shift=SUBCELL_BITS)
        else:
            cv2.polylines(mask, [cells], element.closed, 1, shift=SUBCELL_BITS)
        if mask.any():
            classes.append(MAP_CLASSES.index(element.label))
            masks.append(mask)
    drivable = np.zeros((side, side), np.uint8)
    if rings:
        cv2.fillPoly(drivable, rings, 1, shift=SUBCELL_BITS)
    return MapLabels(
        classes=torch.tensor(classes, dtype=torch.int64),
        masks=torch.from_numpy(np.stack(masks)).bool() if masks else torch.zeros(0, side, side, dtype=torch.bool),
        drivable=torch.from_numpy(drivable).bool(),
    )


def _cells(element: MapElement, lidar_to_base: Array, config: PerceptionConfig) -> np.ndarray:
    """The element's points as cv2 takes them: int32 [N, 2] (column, row) in sixteenths, 0 the first cell's centre."""
    points = np.column_stack([element.points, np.zeros(len(element.points))])
    points = apply(invert(lidar_to_base), points)[:, :2]
    if not np.isfinite(points).all():
        raise TrainingError(f"a {element.label} holds points that are not finite; leave it out of the labels")
    cells = (points - np.array(config.range_metres[:2])) / config.cell_metres - 0.5
    return np.round(cells * 2**SUBCELL_BITS).astype(np.int32)
