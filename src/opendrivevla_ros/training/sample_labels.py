"""A sample's agents and map elements, in base_link, as what perception learns from, in the lidar frame."""

from collections.abc import Sequence

import numpy as np
import torch

from opendrivevla_ros.core.geometry import Array, apply, distances_along, invert
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.driving_samples import AgentLabel
from opendrivevla_ros.perception.config import AGENT_CLASSES, MAP_CLASSES, PerceptionConfig
from opendrivevla_ros.perception.map_drawing import draw_map
from opendrivevla_ros.perception.tracks import BOX_CODE
from opendrivevla_ros.policies.opendrivevla.frames import box_to_lidar
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import LINE_POINTS, BoxLabels, MapLabels, encode_boxes

FUTURE_STEPS = len(FUTURE_TIMES_S)


def box_labels(agents: Sequence[AgentLabel], lidar_to_base: Array, config: PerceptionConfig) -> BoxLabels:
    """The agents that a sensor measured and that stand within the perceived range.

    As in the published training, which leaves out what has no lidar or radar point. Raises TrainingError for a class
    that the network does not have, and for numbers that are not finite.
    """
    low, high = np.array(config.range_metres).reshape(2, 3)[:, :2]
    base_to_lidar = invert(lidar_to_base)[:2, :2]
    boxes, moves, kept = [], [], []
    for agent in agents:
        if agent.label not in AGENT_CLASSES:
            raise TrainingError(f"agent {agent.track_id} is a {agent.label!r}; the classes are {AGENT_CLASSES}")
        box = box_to_lidar(agent.position, agent.size, agent.yaw, agent.velocity, lidar_to_base)
        if not np.isfinite(box).all():
            raise TrainingError(f"agent {agent.track_id} has a label that is not finite: {box.round(2).tolist()}")
        if agent.points > 0 and ((low < box[:2]) & (box[:2] < high)).all():
            boxes.append(box)
            moves.append((agent.future - agent.position[:2]) @ base_to_lidar.T)
            kept.append(agent)
    codes = encode_boxes(torch.from_numpy(np.stack(boxes)).float()) if boxes else torch.zeros(0, BOX_CODE)
    future_known = [torch.from_numpy(agent.future_mask) for agent in kept]
    return BoxLabels(
        ids=torch.tensor([agent.track_id for agent in kept], dtype=torch.int64),
        classes=torch.tensor([AGENT_CLASSES.index(agent.label) for agent in kept], dtype=torch.int64),
        codes=codes,
        velocity_known=torch.tensor([agent.velocity_known for agent in kept], dtype=torch.bool),
        future=torch.from_numpy(np.stack(moves)).float() if moves else torch.zeros(0, FUTURE_STEPS, 2),
        future_known=torch.stack(future_known) if kept else torch.zeros(0, FUTURE_STEPS, dtype=torch.bool),
    )


def map_labels(elements: Sequence[MapElement], lidar_to_base: Array, config: PerceptionConfig) -> MapLabels:
    """The elements on the BEV grid, as `draw_map` draws them; nothing outside the grid.

    Raises TrainingError for a class that the network does not have, and for points that are not finite.
    """
    try:
        drawn = draw_map(elements, lidar_to_base, config)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    lines = [even_points(element.points, element.closed, lidar_to_base) for element in drawn.elements]
    return MapLabels(
        classes=torch.tensor([MAP_CLASSES.index(element.label) for element in drawn.elements], dtype=torch.int64),
        lines=torch.from_numpy(np.stack(lines)).float() if lines else torch.zeros(0, LINE_POINTS, 2),
        masks=torch.from_numpy(drawn.masks),
        drivable=torch.from_numpy(drawn.drivable),
    )


def even_points(points: Array, closed: bool, lidar_to_base: Array) -> Array:
    """LINE_POINTS points at even distances along a line [N, 2] in base_link, in the lidar frame."""
    if closed:
        points = np.concatenate([points, points[:1]])
    points = apply(invert(lidar_to_base), np.column_stack([points, np.zeros(len(points))]))[:, :2]
    along = distances_along(points)
    wanted = np.linspace(0.0, along[-1], LINE_POINTS)
    return np.column_stack([np.interp(wanted, along, points[:, axis]) for axis in (0, 1)])
