"""What the language stages learn from: a moment's features, and all that can be said about it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.language.model import Features
from opendrivevla_ros.perception.config import AGENT_CLASSES, MAP_CLASSES, PerceptionConfig
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.training.frame_labels import plan_label
from opendrivevla_ros.training.labels import LINE_POINTS, PlanLabel
from opendrivevla_ros.training.sample_labels import box_labels, even_points
from opendrivevla_ros.training.text_tasks import (
    TextTask,
    agent_tasks,
    planning_tasks,
    prompt_fields,
    word_tasks,
)

AGENT_NUMBERS = 10 + len(AGENT_CLASSES)
LINE_NUMBERS = 2 * LINE_POINTS + len(MAP_CLASSES)


NOTHING_SEEN = Features(None, None, None)


@dataclass(frozen=True)
class SpokenSample:
    """A moment.

    scene: of which scenario. features: its tokens, or the truth in their place. tasks: what to say. departure: see
    `departure`. plan: how the ego moves and where it went; None where that is not known to the end. ahead: what the
    ego's query looks into (see `PerceptionNetwork.ahead`), half precision; None once it has, or where there is none.
    """

    scene: str
    features: Features
    tasks: tuple[TextTask, ...]
    departure: float = 0.0
    plan: PlanLabel | None = None
    ahead: Tensor | None = None


def departure(sample: DrivingSample) -> float:
    """How far the ego's way leads off from going on at its velocity: the most of its points, metres; 0 for no way."""
    going_on = np.outer(FUTURE_TIMES_S, sample.observation.ego.velocity[:2])
    distances = np.hypot(*(sample.future[:, :2] - going_on).T)[sample.future_mask]
    return float(distances.max(initial=0.0))


def spoken(stored: StoredSample, features: Features, config: OpenDriveVlaConfig) -> SpokenSample:
    """Everything that can be said about a sample, beside features of it."""
    sample = stored.sample
    fields = prompt_fields(sample, config)
    tasks: list[TextTask] = []
    plan = None
    if sample.future_mask.all():
        tasks += planning_tasks(stored, fields, config)
        plan = plan_label(sample)
    tasks += word_tasks(stored.words, fields)
    if sample.agents is not None:
        mount = sample.observation.rig.lidar_to_base
        near = set(box_labels(sample.agents, mount, config.perception).ids.tolist())
        agents = [agent for agent in sample.agents if agent.track_id in near]
        tasks += agent_tasks(agents, fields, mount, decimals=config.decimals)
    return SpokenSample(sample.scene, features, tuple(tasks), departure(sample), plan)


def true_features(stored: StoredSample, config: PerceptionConfig) -> Features:
    """The truth as rows of numbers, in the lidar frame: agents [A, AGENT_NUMBERS] and lines [M, LINE_NUMBERS].

    Of agents, nearest first, the box code and the class; of lines, LINE_POINTS even points and the class. Metres in
    shares of the perceived range, metres a second in tens. The scene is None; the drivable area says no more than its
    boundary.
    """
    sample = stored.sample
    assert sample.agents is not None
    assert sample.map_elements is not None
    mount, reach = sample.observation.rig.lidar_to_base, config.range_metres[3]
    boxes = box_labels(sample.agents, mount, config)
    scale = torch.tensor([reach, reach, 1, 1, 1, 1, 1, 1, 10, 10])
    agents = torch.cat([boxes.codes / scale, torch.eye(len(AGENT_CLASSES))[boxes.classes]], 1)
    agents = agents[boxes.codes[:, :2].norm(dim=1).argsort()]
    rows = [
        np.concatenate([even_points(element.points, element.closed, mount).flatten() / reach, _one_hot(element.label)])
        for element in sample.map_elements
        if element.label != MAP_CLASSES[-1]
    ]
    lines = torch.from_numpy(np.stack(rows)).float() if rows else torch.zeros(0, LINE_NUMBERS)
    return Features(None, agents, lines)


def _one_hot(label: str) -> Array:
    return np.eye(len(MAP_CLASSES))[MAP_CLASSES.index(label)]
