"""Detection and tracking on nuScenes by the official code (nuscenes-devkit), from files of the official form.

The files are what nuScenes' benchmarks take (detection: `detections.json`, tracking: `tracks.json`), so that anybody
can hand them to the devkit's own commands and read the same figures. Boxes are in the map's frame. Everything is
loaded, filtered and measured by `DetectionEval` and `TrackingEval`, whose boxes are given here by the samples that
count, where the devkit alone takes whole splits.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import motmetrics  # noqa: F401  the devkit's tracking says badly that it lacks these two
import numpy as np
import pandas  # noqa: F401
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
    load_prediction_of_sample_tokens,
)
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.tracking.data_classes import TrackingBox
from nuscenes.eval.tracking.evaluate import TrackingEval
from nuscenes.eval.tracking.loaders import create_tracks

from opendrivevla_ros.core.geometry import Array, apply, planar_transform, quaternion
from opendrivevla_ros.core.plan import Agent
from opendrivevla_ros.evaluation.nuscenes_records import SceneRecord

DETECTIONS, TRACKS = "detections.json", "tracks.json"
DETECTION_CONFIG, TRACKING_CONFIG = "detection_cvpr_2019", "tracking_nips_2019"
MOST_BOXES = 500  # of a sample, which the devkit allows
META = {"use_camera": True, "use_lidar": False, "use_radar": False, "use_map": False, "use_external": False}
MOVES = 0.2  # m/s, above which an attribute says so
# The attributes that detections are given where a network tells none, as mmdetection3d does (NuScenesDataset):
# by class, for what moves and for what stands.
ATTRIBUTES = {
    "car": ("vehicle.moving", "vehicle.parked"),
    "truck": ("vehicle.moving", "vehicle.parked"),
    "construction_vehicle": ("vehicle.moving", "vehicle.parked"),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "trailer": ("vehicle.moving", "vehicle.parked"),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
    "barrier": ("", ""),
    "traffic_cone": ("", ""),
}


@dataclass(frozen=True)
class OfficialFigures:
    """What the devkit's `DetectionEval` and `TrackingEval` tell, by their own names; None where nothing was seen.

    Of detection: `nd_score`, `mean_ap`, `tp_errors`, and by class `mean_dist_aps` and `label_tp_errors`. Of tracking:
    `amota`, `amotp`, `ids` and others, and by class `label_metrics`.
    """

    detection: dict[str, Any] | None
    tracking: dict[str, Any] | None


def official_figures(
    root: Path, version: str, split: str, records: Sequence[SceneRecord], folder: Path
) -> OfficialFigures:
    """Writes the two files into a folder and has the devkit measure them, over the recorded samples.

    split: of nuScenes or of the data set's splits.json, as the devkit reads it.
    """
    write_results(records, folder)
    if not any(sample.detections for record in records for sample in record.samples):
        return OfficialFigures(None, None)
    tokens = [sample.token for record in records for sample in record.samples]
    with _quiet():
        nusc = NuScenes(version, str(root), verbose=False)
        detection = _Detection(nusc, folder / DETECTIONS, tokens).figures()
        tracking = _Tracking(nusc, folder / TRACKS, tokens, split).figures()
    return OfficialFigures(detection, tracking)


def write_results(records: Sequence[SceneRecord], folder: Path) -> None:
    """detections.json and tracks.json of what was seen, with every recorded sample in them.

    Of a sample with more boxes than the devkit allows, those of the highest score.
    """
    detections: dict[str, list[dict[str, Any]]] = {}
    tracks: dict[str, list[dict[str, Any]]] = {}
    tracked = set(config_factory(TRACKING_CONFIG).class_names)
    for record in records:
        for sample in record.samples:
            named = [agent for agent in _best(sample.agents) if agent.label in tracked]
            detections[sample.token] = [
                {**_box(sample.token, agent, sample.pose), **_detection(agent)} for agent in _best(sample.detections)
            ]
            tracks[sample.token] = [{**_box(sample.token, agent, sample.pose), **_track(agent)} for agent in named]
    for name, results in ((DETECTIONS, detections), (TRACKS, tracks)):
        (folder / name).write_text(json.dumps({"meta": META, "results": results}, allow_nan=False) + "\n")


def _best(agents: Sequence[Agent]) -> list[Agent]:
    """As many as the devkit allows, by falling score."""
    return sorted(agents, key=lambda agent: -agent.score)[:MOST_BOXES]


def _box(token: str, agent: Agent, base_to_map: Array) -> dict[str, Any]:
    length, width, height = agent.size.tolist()
    x, y, z, w = quaternion(base_to_map @ planar_transform(0.0, 0.0, agent.yaw)).tolist()
    velocity = base_to_map[:3, :3] @ np.array([*agent.velocity, 0.0])
    return {
        "sample_token": token,
        "translation": apply(base_to_map, agent.position).tolist(),
        "size": [width, length, height],
        "rotation": [w, x, y, z],
        "velocity": velocity[:2].tolist(),
    }


def _detection(agent: Agent) -> dict[str, Any]:
    moving, standing = ATTRIBUTES[agent.label]
    moves = bool(np.hypot(*agent.velocity) > MOVES)
    return {
        "detection_name": agent.label,
        "detection_score": float(agent.score),
        "attribute_name": moving if moves else standing,
    }


def _track(agent: Agent) -> dict[str, Any]:
    return {
        "tracking_id": str(agent.track_id),
        "tracking_name": agent.label,
        "tracking_score": float(agent.score),
    }


def _loaded(
    nusc: NuScenes, path: Path, tokens: Sequence[str], config: Any, kind: type
) -> tuple[EvalBoxes, EvalBoxes] | None:
    """True and found boxes, filtered as the devkit's evaluations do; None where there are none on one side."""
    truth = load_gt_of_sample_tokens(nusc, list(tokens), kind)
    found, _ = load_prediction_of_sample_tokens(str(path), config.max_boxes_per_sample, kind, list(tokens))
    if not truth.all or not found.all:
        return None
    boxes = [filter_eval_boxes(nusc, add_center_dist(nusc, boxes), config.class_range) for boxes in (truth, found)]
    return boxes[0], boxes[1]


class _Detection(DetectionEval):
    """The devkit's evaluation of a detection file, over the samples given."""

    def __init__(self, nusc: NuScenes, path: Path, tokens: Sequence[str]) -> None:
        self.cfg, self.verbose = config_factory(DETECTION_CONFIG), False
        self._boxes = _loaded(nusc, path, tokens, self.cfg, DetectionBox)
        if self._boxes is not None:
            self.gt_boxes, self.pred_boxes = self._boxes

    def figures(self) -> dict[str, Any] | None:
        return None if self._boxes is None else _serialized(self.evaluate()[0])


class _Tracking(TrackingEval):
    """The devkit's evaluation of a tracking file, over the samples given."""

    def __init__(self, nusc: NuScenes, path: Path, tokens: Sequence[str], split: str) -> None:
        self.cfg, self.verbose = config_factory(TRACKING_CONFIG), False
        self.output_dir = ""
        self.render_classes: list[str] = []
        self._boxes = _loaded(nusc, path, tokens, self.cfg, TrackingBox)
        if self._boxes is not None:
            self.tracks_gt = create_tracks(self._boxes[0], nusc, split, gt=True)
            self.tracks_pred = create_tracks(self._boxes[1], nusc, split, gt=False)

    def figures(self) -> dict[str, Any] | None:
        return None if self._boxes is None else _serialized(self.evaluate()[0])


def _serialized(metrics: Any) -> dict[str, Any]:
    """As the devkit writes them, but for the time that it took and the configuration, which is named."""
    return {key: value for key, value in metrics.serialize().items() if key not in ("eval_time", "cfg")}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of the devkit, which come in quiet mode too."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
