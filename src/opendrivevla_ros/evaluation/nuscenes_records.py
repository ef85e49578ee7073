"""What an evaluation on nuScenes keeps of a scene: a folder with record.json, which is whole or not there.

A record holds what each policy planned and the first one saw, beside the truth that this is held against, and says
which evaluation it belongs to: policies by the hash of their weights, data set, split, and version of this package.
Records of another evaluation are refused, never mixed in.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.files import write_whole
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.plan import Agent
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.evaluation.moments import ResultsError, ShownMoment, read_moments, write_moments
from opendrivevla_ros.evaluation.world_scenes import EvaluationError

RECORD = "record.json"
STEPS = len(FUTURE_TIMES_S)
NOT_FINITE = "not_finite"  # why a plan that holds such numbers counts as none


@dataclass(frozen=True)
class SampleRecord:
    """One sample; all in base_link at t0 but for `pose`.

    pose: [4, 4] of base_link in the map. reference: [6, 3] x, y, yaw of base_link at the next keyframes, 0 where mask
    [6] is False because the scene has ended. boxes: [N, 5] x, y, yaw, length, width of vehicles and pedestrians at
    those keyframes, instants: [N] from 0 on at which of them; pedestrian, hidden: bool [N], the latter for those of
    nuScenes' lowest visibility. plans: by policy [6, 3], None where no plan came; failures: why not, by policy.
    agents: what the first policy saw; detections: see `detection.detections_of`; agents_left_out: how many more of
    those it told that the devkit cannot take, because they are not finite, have no extent or a class of its own.
    """

    token: str
    pose: Array
    reference: Array
    mask: NDArray[np.bool_]
    boxes: Array
    instants: NDArray[np.int64]
    pedestrian: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    plans: dict[str, Array | None]
    failures: dict[str, str]
    agents: tuple[Agent, ...]
    detections: tuple[Agent, ...]
    agents_left_out: int = 0


@dataclass(frozen=True)
class SceneRecord:
    """One scene, its samples in order.

    settings: of the evaluation that it belongs to, ready for JSON. lidar_to_base: [4, 4], one for a scene. moments:
    the first policy's worst. problem: why there is nothing, in one sentence; empty where there is.
    """

    scene: str
    settings: Mapping[str, Any]
    lidar_to_base: Array
    samples: tuple[SampleRecord, ...]
    moments: tuple[ShownMoment, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Problems:
    """What is in no figure, by name.

    absent: scenes of the split that the data set lacks. scenes: why others gave nothing. missing: samples of the split
    without a record. unknown: recorded samples that the split does not have. duplicated: those recorded more than
    once, all of which are left out, because nobody can tell which one is right.
    """

    absent: tuple[str, ...]
    scenes: dict[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    duplicated: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.absent or self.scenes or self.missing or self.unknown or self.duplicated)


def keep(record: SceneRecord, folder: Path) -> None:
    """Writes a record to the folder of its scene in `folder`; record.json comes last, whole or not at all."""
    place = folder / record.scene
    place.mkdir(parents=True, exist_ok=True)
    write_moments(place, record.moments)
    content = {
        "settings": record.settings,
        "scene": record.scene,
        "lidar_to_base": record.lidar_to_base.tolist(),
        "samples": [_to_json(sample) for sample in record.samples],
    }
    write_whole(place / RECORD, json.dumps(content, allow_nan=False).encode())


def kept_records(folder: Path, settings: Mapping[str, Any], data: Mapping[str, str]) -> list[SceneRecord]:
    """The records in a folder. Raises EvaluationError for one that is broken, or of other settings.

    settings: without `data`, which is here by scene: the hash of what the data set says of it.
    """
    return [_read(path, settings, data) for path in sorted(folder.glob(f"*/{RECORD}"))]


def require_same(found: Mapping[str, Any], expected: Mapping[str, Any], what: str, remedy: str) -> None:
    """Raises EvaluationError where settings differ, which names the first that does."""
    for key in dict.fromkeys([*expected, *found]):
        if found.get(key) != expected.get(key):
            values = f"{found.get(key)!r} and not {expected.get(key)!r}"
            raise EvaluationError(f"{what} is of another evaluation: {key} {values}; {remedy}")


def gather(
    records: Sequence[SceneRecord],
    tokens: Mapping[str, Sequence[str]],
    *,
    absent: Sequence[str],
    without: Mapping[str, str],
) -> tuple[list[SceneRecord], Problems]:
    """The records with those samples that count, and what does not.

    tokens: of the split's samples, by scene. absent: see `Problems`. without: why scenes gave nothing, by name.
    """
    expected = [token for of_scene in tokens.values() for token in of_scene]
    counts = Counter(sample.token for record in records for sample in record.samples)
    good = {token for token in expected if counts[token] == 1}
    known = set(expected)
    problems = Problems(
        absent=tuple(absent),
        scenes=dict(without),
        missing=tuple(token for token in expected if not counts[token]),
        unknown=tuple(token for token in counts if token not in known),
        duplicated=tuple(token for token in expected if counts[token] > 1),
    )
    chosen = [
        SceneRecord(
            record.scene,
            record.settings,
            record.lidar_to_base,
            tuple(sample for sample in record.samples if sample.token in good),
            record.moments,
        )
        for record in records
    ]
    return [record for record in chosen if record.samples], problems


def _read(path: Path, settings: Mapping[str, Any], data: Mapping[str, str]) -> SceneRecord:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        scene, found = str(content["scene"]), dict(content["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(path, error) from None
    remedy = f"choose another --output, or remove {path.parent.parent} to evaluate anew"
    expected = {**settings, "data": data.get(scene, found.get("data"))}  # another scene's samples are told as unknown
    require_same(found, expected, str(path), remedy)
    try:
        return SceneRecord(
            scene=scene,
            settings=found,
            lidar_to_base=_numbers(content["lidar_to_base"], 4, 4),
            samples=tuple(_from_json(sample, list(settings["weights"])) for sample in content["samples"]),
            moments=read_moments(path.parent),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ResultsError) as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> EvaluationError:
    problem = f"{type(error).__name__}: {error}"
    return EvaluationError(f"{path} is no whole record ({problem}); remove {path.parent} to evaluate that scene again")


def _to_json(sample: SampleRecord) -> dict[str, Any]:
    return {
        "token": sample.token,
        "pose": sample.pose.tolist(),
        "reference": sample.reference.tolist(),
        "mask": sample.mask.tolist(),
        "boxes": sample.boxes.tolist(),
        "instants": sample.instants.tolist(),
        "pedestrian": sample.pedestrian.tolist(),
        "hidden": sample.hidden.tolist(),
        "plans": {name: None if plan is None else plan.tolist() for name, plan in sample.plans.items()},
        "failures": sample.failures,
        "agents": [_agent_to_json(agent) for agent in sample.agents],
        "detections": [_agent_to_json(agent) for agent in sample.detections],
        "agents_left_out": sample.agents_left_out,
    }


def _agent_to_json(agent: Agent) -> dict[str, Any]:
    return {
        "track_id": agent.track_id,
        "label": agent.label,
        "score": float(agent.score),
        "position": agent.position.tolist(),
        "size": agent.size.tolist(),
        "yaw": float(agent.yaw),
        "velocity": agent.velocity.tolist(),
    }


def _from_json(row: Mapping[str, Any], policies: Sequence[str]) -> SampleRecord:
    boxes = _numbers(row["boxes"], None, 5)
    count = len(boxes)
    instants = np.array(row["instants"], dtype=np.int64).reshape(count)
    if count and not (instants.min() >= 0 and instants.max() < STEPS):
        raise ValueError(f"boxes at the instants {instants.min()} to {instants.max()}, of which there are {STEPS}")
    plans: dict[str, Array | None] = {}
    failures = {str(name): str(reason) for name, reason in row["failures"].items()}
    for name in policies:
        values = row["plans"][name]
        plan = None if values is None else np.array(values, dtype=np.float64).reshape(STEPS, 3)
        if plan is not None and not np.isfinite(plan).all():
            plan, failures[name] = None, NOT_FINITE
        if plan is None and name not in failures:
            raise ValueError(f"the sample {row['token']!r} has neither a plan of {name!r} nor a reason for none")
        plans[name] = plan
    return SampleRecord(
        token=str(row["token"]),
        pose=_numbers(row["pose"], 4, 4),
        reference=_numbers(row["reference"], STEPS, 3),
        mask=np.array(row["mask"], dtype=np.bool_).reshape(STEPS),
        boxes=boxes,
        instants=instants,
        pedestrian=np.array(row["pedestrian"], dtype=np.bool_).reshape(count),
        hidden=np.array(row["hidden"], dtype=np.bool_).reshape(count),
        plans=plans,
        failures=failures,
        agents=tuple(_agent(agent) for agent in row["agents"]),
        detections=tuple(_agent(agent) for agent in row["detections"]),
        agents_left_out=int(row["agents_left_out"]),
    )


def _agent(row: Mapping[str, Any]) -> Agent:
    return Agent(
        track_id=int(row["track_id"]),
        label=str(row["label"]),
        score=float(row["score"]),
        position=_numbers(row["position"], 3),
        size=_numbers(row["size"], 3),
        yaw=float(row["yaw"]),
        velocity=_numbers(row["velocity"], 2),
    )


def _numbers(values: Any, *shape: int | None) -> Array:
    """Finite numbers of a shape; None: of any length."""
    numbers = np.array(values, dtype=np.float64)
    if numbers.size == 0 and shape[0] is None:
        numbers = numbers.reshape(tuple(0 if side is None else side for side in shape))
    fits = len(numbers.shape) == len(shape) and all(
        side is None or side == found for side, found in zip(shape, numbers.shape, strict=True)
    )
    if not (fits and np.isfinite(numbers).all()):
        raise ValueError(f"{list(numbers.shape)} numbers where {list(shape)} finite ones belong")
    return numbers
