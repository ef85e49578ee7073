"""The last attempt to plan, written to a folder: pictures, prompt, raw output, plan, parameters. No rclpy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from opendrivevla_ros.core.plan import Plan
from opendrivevla_ros.ros.inference import Outcome
from opendrivevla_ros.sensing.images import CompressedImage, EncodedImage


def save_snapshot(folder: Path, outcome: Outcome, parameters: Mapping[str, Any]) -> Path:
    """Writes a new folder named after the anchor's stamp (nanoseconds) and returns it.

    Compressed pictures are written as they came, raw ones as PNG.
    """
    target = folder / str(outcome.job.frames.anchor_stamp_ns)
    target.mkdir(parents=True, exist_ok=True)
    for camera, frame in outcome.job.frames.frames.items():
        if frame.image is not None:
            _write_picture(target / camera, frame.image)
    plan = outcome.plan
    (target / "prompt.txt").write_text(plan.prompt if plan is not None else "")
    (target / "raw_output.txt").write_text(plan.raw_text if plan is not None else "")
    (target / "attempt.json").write_text(json.dumps(_attempt(outcome), indent=2))
    (target / "parameters.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters)}}))
    return target


def _write_picture(path: Path, image: EncodedImage) -> None:
    if isinstance(image, CompressedImage):
        data = bytes(image.data)
        path.with_suffix(".png" if data.startswith(b"\x89PNG") else ".jpg").write_bytes(data)
    else:
        cv2.imwrite(str(path.with_suffix(".png")), image.decode())


def _attempt(outcome: Outcome) -> dict[str, Any]:
    frames = outcome.job.frames
    attempt: dict[str, Any] = {
        "stamp_ns": frames.anchor_stamp_ns,
        "camera_stamps_ns": {camera: frame.stamp_ns for camera, frame in frames.frames.items()},
        "degraded": list(frames.degraded),
        "command": outcome.job.command.command.name,
        "result": outcome.result,
        "reason": outcome.reason,
        "stage_times_s": outcome.stage_times,
    }
    if outcome.observation is not None:
        ego = outcome.observation.ego
        names = ("base_to_world", "velocity", "acceleration", "angular_velocity", "history")
        attempt["ego"] = {name: getattr(ego, name).tolist() for name in names}
    if outcome.plan is not None:
        attempt["plan"] = _plan(outcome.plan)
    return attempt


def _plan(plan: Plan) -> dict[str, Any]:
    trajectory = plan.trajectory
    names = ("times", "xy", "yaw", "velocity", "acceleration", "curvature", "covariance")
    return {
        "confidence": plan.confidence,
        "trajectory": {name: np.asarray(getattr(trajectory, name)).tolist() for name in names},
        "reasoning": plan.reasoning.text,
        "agents": [
            {"track_id": agent.track_id, "label": agent.label, "score": agent.score, "position": list(agent.position)}
            for agent in plan.agents
        ],
        "map_elements": [
            {"label": element.label, "score": element.score, "points": np.asarray(element.points).tolist()}
            for element in plan.map_elements
        ],
        "token_counts": plan.token_counts,
    }
