"""nuScenes detection figures of what a policy detects, by the official code (nuscenes-devkit).

`DetectionEval.evaluate` of that package reads its boxes from a data set on disk. Here they come from memory; all that
is measured is measured by its functions `accumulate`, `calc_ap` and `calc_tp` with its configuration
`detection_cvpr_2019`, in the order of that method. Boxes are in base_link at each sample's t0, which is where the
official code measures ranges from. Its filters are applied as `filter_eval_boxes` does: distance, and at least one
point on a true box.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
from nuscenes.eval.detection.data_classes import DetectionBox

from opendrivevla_ros.core.plan import Agent, Plan
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.datasets.driving_samples import AgentLabel

RANGE_METRES = 30.0  # the official ranges, 30 to 50 m by class, are cut to this


@dataclass(frozen=True)
class ClassScores:
    """One class of nuScenes' detection task.

    true_boxes: how many there were. average_precision: mean over the distances 0.5, 1, 2 and 4 m, which
    precision_at holds. translation: m, scale: 1 - IOU, orientation: rad, velocity: m/s, mean errors of what matches
    within 2 m; 1 where nothing does.
    """

    true_boxes: int
    average_precision: float
    precision_at: dict[str, float]
    translation: float
    scale: float
    orientation: float
    velocity: float


@dataclass(frozen=True)
class DetectionScores:
    """Scores of the classes that were there, and their mean precision; range_metres: the greatest distance."""

    mean_average_precision: float
    classes: dict[str, ClassScores]
    range_metres: float


@runtime_checkable
class TellsDetections(Protocol):
    """A policy that tells all that its network detects, and not only what it is sure enough of for a plan."""

    @property
    def detections(self) -> tuple[Agent, ...]:
        """Of the last plan, in base_link; () before the first."""


def detections_of(policy: DrivingPolicy, plan: Plan) -> tuple[Agent, ...]:
    """What a policy detected for its last plan; the plan's agents where it tells no more."""
    return policy.detections if isinstance(policy, TellsDetections) else plan.agents


def detection_scores(
    samples: Iterable[tuple[str, Sequence[AgentLabel], Sequence[Agent]]], *, range_metres: float = RANGE_METRES
) -> DetectionScores:
    """Figures of samples, each with a token of its own, what was there and what was found, both in base_link.

    A class counts within its official range or `range_metres`, whichever is less.
    """
    config = config_factory("detection_cvpr_2019")
    ranges = {name: min(float(limit), range_metres) for name, limit in config.class_range.items()}
    truth, found = EvalBoxes(), EvalBoxes()
    for token, labels, agents in samples:
        boxes = (_true_box(token, label) for label in labels if label.points > 0)
        truth.add_boxes(token, [box for box in boxes if box.ego_dist < ranges[box.detection_name]])
        boxes = (_found_box(token, agent) for agent in agents)
        found.add_boxes(token, [box for box in boxes if box.ego_dist < ranges[box.detection_name]])
    classes = {}
    for name in config.class_names:
        count = sum(box.detection_name == name for box in truth.all)
        if count == 0:
            continue
        data = {limit: accumulate(truth, found, name, config.dist_fcn_callable, limit) for limit in config.dist_ths}
        precisions = {f"{limit} m": calc_ap(data[limit], config.min_recall, config.min_precision) for limit in data}
        errors = {
            error: calc_tp(data[config.dist_th_tp], config.min_recall, error)
            for error in ("trans_err", "scale_err", "orient_err", "vel_err")
        }
        classes[name] = ClassScores(
            true_boxes=count,
            average_precision=float(np.mean(list(precisions.values()))),
            precision_at=precisions,
            translation=errors["trans_err"],
            scale=errors["scale_err"],
            orientation=errors["orient_err"],
            velocity=errors["vel_err"],
        )
    mean = float(np.mean([scores.average_precision for scores in classes.values()])) if classes else float("nan")
    return DetectionScores(mean, classes, range_metres)


def _true_box(token: str, label: AgentLabel) -> DetectionBox:
    return _box(token, label, velocity=label.velocity, num_pts=label.points)


def _found_box(token: str, agent: Agent) -> DetectionBox:
    return _box(token, agent, velocity=agent.velocity, detection_score=float(agent.score))


def _box(token: str, thing: AgentLabel | Agent, **fields: object) -> DetectionBox:
    length, width, height = thing.size.tolist()
    centre = tuple(thing.position.tolist())
    return DetectionBox(
        sample_token=token,
        translation=centre,
        size=(width, length, height),
        rotation=(float(np.cos(thing.yaw / 2)), 0.0, 0.0, float(np.sin(thing.yaw / 2))),
        ego_translation=centre,
        detection_name=thing.label,
        **{name: tuple(value.tolist()) if isinstance(value, np.ndarray) else value for name, value in fields.items()},
    )
