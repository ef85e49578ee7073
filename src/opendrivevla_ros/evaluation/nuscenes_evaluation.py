"""A policy on the scenes of a nuScenes-format data set, each recorded once: what all figures are made from.

Scenes are streamed sample by sample in order, so that a policy keeps its temporal state, and every policy forgets the
scene before. They are independent of each other: processes or the nodes of a Ray cluster take one at a time, and each
is written down as it ends, so that an evaluation that was stopped goes on where it was.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from opendrivevla_ros import __version__
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.plan import Agent, Plan, PlanError
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.nuscenes_scenes import Following, NuScenesScene, NuScenesScenes
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError
from opendrivevla_ros.evaluation.detection import detections_of
from opendrivevla_ros.evaluation.moments import ShownMoment, keep_worst, shown_moment
from opendrivevla_ros.evaluation.nuscenes_open_loop import PEDESTRIANS, VEHICLES
from opendrivevla_ros.evaluation.nuscenes_records import (
    NOT_FINITE,
    STEPS,
    Problems,
    SampleRecord,
    SceneRecord,
    gather,
    keep,
    kept_records,
    require_same,
)
from opendrivevla_ros.evaluation.ray_tasks import over_ray
from opendrivevla_ros.evaluation.world_scenes import (
    EvaluationError,
    display_names,
    load_greedy,
    scored_poses,
    spread,
    work_on_one_core,
)
from opendrivevla_ros.perception.config import AGENT_CLASSES

HIDDEN = 1  # nuScenes' lowest visibility, less than 40 %
OTHER_TIMES = "other_times"  # why a plan that is not for every 0.5 s up to 3 s counts as none
NUSCENES_SPLITS = {"v1.0-trainval": ("train", "val"), "v1.0-mini": ("mini_train", "mini_val"), "v1.0-test": ("test",)}


@dataclass(frozen=True)
class NuScenesTask:
    """What is evaluated on what. sources: policies by name or folder, the one under test first."""

    root: str
    version: str
    split: str
    sources: tuple[str, ...]
    device: str = "cpu"
    precision: str = "float32"


def find_version(root: Path, split: str) -> str:
    """The folder of tables below a data set's root: the one that is there, or nuScenes' own for one of its splits.

    Raises EvaluationError where there is none, or none can be told from the others.
    """
    found = sorted(path.parent.name for path in root.glob("*/scene.json"))
    if len(found) == 1:
        return found[0]
    fitting = [version for version in found if split in NUSCENES_SPLITS.get(version, ())]
    if len(fitting) == 1:
        return fitting[0]
    if not found:
        raise EvaluationError(f"{root} has no folder of tables with a scene.json; --root is what holds v1.0-trainval/")
    raise EvaluationError(f"{root} has the tables of {', '.join(found)}; choose one with --version")


@dataclass(frozen=True)
class Prepared:
    """A task and what it will be held against. settings: what its records belong to, ready for JSON, but for `data`.

    data: by scene a hash of what the data set says of it. tokens: of its samples, by scene. absent: scenes of the
    split that the data set lacks.
    """

    task: NuScenesTask
    settings: dict[str, Any]
    data: dict[str, str]
    tokens: dict[str, list[str]]
    absent: tuple[str, ...]

    @property
    def all_data(self) -> str:
        """SHA-256 in hex of `data`."""
        return hashlib.sha256("".join(self.data.values()).encode()).hexdigest()


def prepare(task: NuScenesTask) -> Prepared:
    """Raises CheckpointError for a policy that cannot be loaded, DatasetError for a data set that cannot be read."""
    policies = _load_policies(task)
    scenes = _load_scenes(task, policies)
    for name in scenes.names:
        if Path(name).name != name:
            raise EvaluationError(f"the scene {name!r} has no name for a folder of its record; rename it")
    return Prepared(
        task,
        _settings(task, policies),
        {name: scenes.fingerprint(name) for name in scenes.names},
        {name: scenes.sample_tokens(name) for name in scenes.names},
        scenes.absent,
    )


def record_all(
    prepared: Prepared,
    folder: Path,
    *,
    processes: int = 2,
    ray: str | None = None,
    progress: Callable[[str, int, int], None] = lambda scene, done, total: None,
) -> tuple[list[SceneRecord], Problems]:
    """All scenes' records, in order, and what is in none of them; those that are kept in `folder` are not made again.

    processes: on this machine, unless ray, the address of a cluster, is given; the records are the same. progress:
    told the scene, how many are done and how many there are; first with no name and what was there before.
    Raises EvaluationError for records of another evaluation, and where nothing comes of all scenes.
    """
    task, settings, data = prepared.task, prepared.settings, prepared.data
    names = list(data)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {record.scene for record in kept_records(folder, settings, data)}
    to_do = [name for name in names if name not in kept]
    before = len(names) - len(to_do)
    progress("", before, len(names))
    without: dict[str, str] = {}
    if to_do and ray is not None:
        work = partial(record_scene, task=task)
        recorded = over_ray(work, to_do, address=ray, gpus=task.device.startswith("cuda"))
        for done, (name, record) in enumerate(recorded, start=1):
            remedy = "put the same package, data set and policies on every node"
            expected = {**settings, "data": data[name]}
            require_same(record.settings, expected, f"{name}, as a node of the Ray cluster recorded it,", remedy)
            if record.problem:
                without[name] = record.problem
            else:
                keep(record, folder)
            progress(name, before + done, len(names))
    elif to_do:
        problems = spread(
            partial(_record_here, task=task, folder=folder),
            to_do,
            processes=processes,
            progress=lambda done, _: progress(to_do[done - 1], before + done, len(names)),
        )
        without = {name: problem for name, problem in zip(to_do, problems, strict=True) if problem}
    order = {name: place for place, name in enumerate(names)}
    records = kept_records(folder, settings, data)
    records.sort(key=lambda record: order.get(record.scene, len(order)))
    gathered, problems_of_all = gather(records, prepared.tokens, absent=prepared.absent, without=without)
    if not gathered:
        first = next(iter(without.values()), "their records hold no sample of it")
        raise EvaluationError(f"no scene of {task.split!r} gave a figure: {first}")
    return gathered, problems_of_all


def _record_here(name: str, *, task: NuScenesTask, folder: Path) -> str:
    """Writes down a scene; returns why there is nothing, or nothing."""
    record = record_scene(name, task=task)
    if not record.problem:
        keep(record, folder)
    return record.problem


def record_scene(name: str, *, task: NuScenesTask) -> SceneRecord:
    """One scene planned by all policies, in this process; its problem where the data set's is broken."""
    policies, scenes = _loaded(task)
    settings = {**_settings(task, policies), "data": scenes.fingerprint(name)}
    try:
        return stream_scene(scenes[name], policies, settings)
    except DatasetError as error:
        return SceneRecord(name, settings, np.eye(4), (), problem=str(error))


def stream_scene(
    scene: NuScenesScene, policies: Mapping[str, DrivingPolicy], settings: Mapping[str, Any]
) -> SceneRecord:
    """The samples of a scene in order, planned by every policy, which forget the scene before. Raises DatasetError."""
    for policy in policies.values():
        policy.reset()
    samples: list[SampleRecord] = []
    moments: list[ShownMoment] = []
    mount: Array = np.eye(4)
    first_ns = 0
    for sample in scene:
        if sample.index == 0:
            mount, first_ns = sample.observation.rig.lidar_to_base, sample.observation.stamp_ns
        outcomes = {name: _plan(policy, sample) for name, policy in policies.items()}
        observer, first = next(iter(policies.values())), next(iter(outcomes.values()))
        detected = () if isinstance(first, str) else detections_of(observer, first)
        record, seen = _record(sample, scene.following(sample.index), outcomes, detected)
        samples.append(record)
        planned = next(iter(record.plans.values()))
        if seen is not None and planned is not None and record.mask.all():
            moments.append(
                shown_moment(
                    scene.name,
                    (sample.observation.stamp_ns - first_ns) * 1e-9,
                    observation=sample.observation,
                    plan=seen,
                    planned=planned,
                    reference=record.reference,
                    agents=sample.agents or (),
                    elements=seen.map_elements,
                )
            )
    return SceneRecord(scene.name, settings, mount, tuple(samples), keep_worst(moments))


def _plan(policy: DrivingPolicy, sample: DrivingSample) -> Plan | str:
    """The plan, or why there is none."""
    try:
        return policy.plan(sample.observation)
    except PlanError as error:
        return error.failure.name.lower()


def _record(
    sample: DrivingSample,
    following: Sequence[Following],
    outcomes: Mapping[str, Plan | str],
    detected: Sequence[Agent],
) -> tuple[SampleRecord, Plan | None]:
    """What is kept of a sample, and the first policy's plan."""
    reference, mask = np.zeros((STEPS, 3)), np.arange(STEPS) < len(following)
    reference[: len(following)] = np.array([one.pose for one in following]).reshape(-1, 3)
    there = [
        (instant, agent)
        for instant, one in enumerate(following)
        for agent in one.agents
        if agent.label in VEHICLES + PEDESTRIANS
    ]
    plans: dict[str, Array | None] = {}
    failures: dict[str, str] = {}
    for name, outcome in outcomes.items():
        found = outcome if isinstance(outcome, str) else _six_poses(outcome)
        plans[name] = None if isinstance(found, str) else found
        if isinstance(found, str):
            failures[name] = found
    first = next(iter(outcomes.values()))
    told = () if isinstance(first, str) else first.agents
    detections = tuple(agent for agent in detected if _is_whole(agent))
    boxes = [[*agent.position[:2], agent.yaw, *agent.size[:2]] for _, agent in there]
    record = SampleRecord(
        token=sample.token,
        pose=sample.observation.ego.base_to_world,
        reference=reference,
        mask=mask,
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 5),
        instants=np.array([instant for instant, _ in there], dtype=np.int64),
        pedestrian=np.array([agent.label in PEDESTRIANS for _, agent in there], dtype=np.bool_),
        hidden=np.array([agent.visibility == HIDDEN for _, agent in there], dtype=np.bool_),
        plans=plans,
        failures=failures,
        agents=tuple(agent for agent in told if _is_whole(agent)),
        detections=detections,
        agents_left_out=len(detected) - len(detections),
    )
    return record, None if isinstance(first, str) else first


def _six_poses(plan: Plan) -> Array | str:
    """[6, 3] x, y, yaw at the published times, or why a plan has none."""
    try:
        poses = scored_poses(plan)
    except EvaluationError:
        return OTHER_TIMES
    return poses if np.isfinite(poses).all() else NOT_FINITE


def _is_whole(agent: Agent) -> bool:
    """Whether the devkit can take it."""
    numbers = [*agent.position, *agent.size, *agent.velocity, agent.yaw, agent.score]
    return agent.label in AGENT_CLASSES and bool(np.isfinite(numbers).all()) and min(agent.size) > 0


@lru_cache(maxsize=1)
def _loaded(task: NuScenesTask) -> tuple[dict[str, DrivingPolicy], NuScenesScenes]:
    """The policies and the data set of a worker, loaded once."""
    policies = _load_policies(task)
    work_on_one_core()
    return policies, _load_scenes(task, policies)


def _load_policies(task: NuScenesTask) -> dict[str, DrivingPolicy]:
    """By their short names."""
    names = display_names(task.sources)
    return {name: load_greedy(source, device=task.device, precision=task.precision) for source, name in names.items()}


def _load_scenes(task: NuScenesTask, policies: Mapping[str, DrivingPolicy]) -> NuScenesScenes:
    """With pictures as large as any policy needs, without maps."""
    sizes = [policy.info.image_size for policy in policies.values()]
    size = max(width for width, _ in sizes), max(height for _, height in sizes)
    return NuScenesScenes(task.root, task.version, image_size=size, split=task.split, map_reach=None)


def _settings(task: NuScenesTask, policies: Mapping[str, DrivingPolicy]) -> dict[str, Any]:
    return {
        "version": __version__,
        "weights": {name: policy.info.weights_hash for name, policy in policies.items()},
        "tables": task.version,
        "split": task.split,
        "device": task.device,
        "precision": task.precision,
    }
