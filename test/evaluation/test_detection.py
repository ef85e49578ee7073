"""Detection figures: equal to the official evaluation's, and what its filters leave out."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation.scenes import make_label, true_agent
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval

from opendrivevla_ros.core.plan import Agent
from opendrivevla_ros.datasets.driving_samples import AgentLabel
from opendrivevla_ros.evaluation.detection import detection_scores

Sample = tuple[str, list[AgentLabel], list[Agent]]


def noisy_samples(count: int = 40) -> list[Sample]:
    """Cars and pedestrians within 20 m, found somewhat off, some not at all, and some that are not there."""
    random = np.random.default_rng(5)
    samples: list[Sample] = []
    for index in range(count):
        labels, agents = [], []
        for number in range(6):
            x, y = random.uniform(-14, 14, 2)
            label = make_label(number, x, y, label="pedestrian" if number == 5 else "car", yaw=random.uniform(-3, 3))
            labels.append(label)
            if random.uniform() < 0.8:
                agent = true_agent(label, score=float(random.uniform(0.3, 1.0)))
                off = np.array([*random.normal(0, 0.7, 2), 0.0])
                agents.append(replace(agent, position=agent.position + off, velocity=agent.velocity + off[:2]))
        agents.append(true_agent(make_label(9, *random.uniform(-14, 14, 2)), score=0.5))
        samples.append((f"sample {index}", labels, agents))
    return samples


def official(samples: list[Sample]) -> object:
    """What DetectionEval.evaluate makes of the same boxes."""
    truth, found = EvalBoxes(), EvalBoxes()

    def box(token: str, thing: AgentLabel | Agent, score: float) -> DetectionBox:
        return DetectionBox(
            sample_token=token,
            translation=tuple(thing.position),
            size=(thing.size[1], thing.size[0], thing.size[2]),
            rotation=(np.cos(thing.yaw / 2), 0.0, 0.0, np.sin(thing.yaw / 2)),
            velocity=tuple(thing.velocity),
            num_pts=5,
            detection_name=thing.label,
            detection_score=score,
        )

    for token, labels, agents in samples:
        truth.add_boxes(token, [box(token, label, -1.0) for label in labels])
        found.add_boxes(token, [box(token, agent, agent.score) for agent in agents])
    evaluation = object.__new__(DetectionEval)
    evaluation.cfg, evaluation.verbose = config_factory("detection_cvpr_2019"), False
    evaluation.gt_boxes, evaluation.pred_boxes = truth, found
    return evaluation.evaluate()[0]


def test_figures_are_those_of_the_official_evaluation() -> None:
    samples = noisy_samples()
    scores, expected = detection_scores(samples), official(samples)
    for name in ("car", "pedestrian"):
        own = scores.classes[name]
        assert own.average_precision == pytest.approx(expected.mean_dist_aps[name])
        assert 0.05 < own.average_precision < 0.95
        assert own.translation == pytest.approx(expected.get_label_tp(name, "trans_err"))
        assert own.orientation == pytest.approx(expected.get_label_tp(name, "orient_err"))
        assert own.scale == pytest.approx(expected.get_label_tp(name, "scale_err"))
        assert own.velocity == pytest.approx(expected.get_label_tp(name, "vel_err"))
    assert list(scores.classes["car"].precision_at) == ["0.5 m", "1.0 m", "2.0 m", "4.0 m"]
    mean = np.mean([one.average_precision for one in scores.classes.values()])
    assert scores.mean_average_precision == pytest.approx(mean)


def test_only_classes_that_are_there_count() -> None:
    labels = [make_label(), make_label(1, label="bus", points=0)]
    scores = detection_scores([("a", labels, [true_agent(label) for label in labels])])
    assert list(scores.classes) == ["car"]
    assert scores.classes["car"].true_boxes == 1
    assert np.isnan(detection_scores([("a", [], [])]).mean_average_precision)


def test_what_is_out_of_range_or_was_not_measured_counts_on_neither_side() -> None:
    near, far, hidden = make_label(0, 29.0), make_label(1, 31.0), make_label(2, 5.0, points=0)
    found = [true_agent(near), true_agent(far, score=0.99)]
    scores = detection_scores([("a", [near, far, hidden], found)])
    assert scores.classes["car"].true_boxes == 1
    assert scores.classes["car"].average_precision == pytest.approx(1.0)
    assert detection_scores([("a", [near, far], found)], range_metres=40.0).classes["car"].true_boxes == 2


def test_nothing_found_scores_nothing() -> None:
    scores = detection_scores([("a", [make_label()], [])]).classes["car"]
    assert (scores.average_precision, scores.translation) == (0.0, 1.0)
