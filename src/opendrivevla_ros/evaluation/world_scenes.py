"""Test scenes of the driving world: drawn once, planned by every policy, and spread over processes.

The expert drives; the policies are passengers who are asked twice a second what they would do. One pass collects
what open loop, detection, tracking and map figures need, so that the pictures are drawn once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array, wrap_angle
from opendrivevla_ros.core.plan import Agent, Plan, PlanError
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.core.workers import WorkerDied, worked
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample
from opendrivevla_ros.datasets.world_samples import WorldSampler
from opendrivevla_ros.evaluation.detection import detections_of
from opendrivevla_ros.evaluation.driver_score import DriverScore, driver_score
from opendrivevla_ros.evaluation.map_overlap import GRID, TellsMap, cell_counts, mask_cells, polyline_cells
from opendrivevla_ros.evaluation.moments import ShownMoment, keep_worst, shown_moment
from opendrivevla_ros.evaluation.world_score import world_scene
from opendrivevla_ros.policies.registry import BASELINES, kind_of, load_policy
from opendrivevla_ros.world.expert import Future, roll_out
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import World

SCORED_S = 3.0  # of the driver score: a plan's length, and that of the world's future
IMAGE_SIZE = (224, 126)  # for policies that ask for less
Task = TypeVar("Task")
Result = TypeVar("Result")


class EvaluationError(Exception):
    """An evaluation that cannot be made or finished: one sentence."""


@dataclass(frozen=True)
class Loading:
    """On what a policy with a network runs, and in which numbers; see `registry.load_policy`."""

    device: str = "cpu"
    precision: str = "float32"


ON_CPU = Loading()


@dataclass(frozen=True)
class Scene:
    """A scenario of the driving world by its family and seed."""

    family: str
    seed: int


def evaluation_scenes(count: int, split: Split = Split.TEST) -> tuple[Scene, ...]:
    """So many scenes with seeds of a split, all families in turn. Raises EvaluationError for a count below 1."""
    if count < 1:
        raise EvaluationError(f"{count} scenes are too few to evaluate; give 1 or more")
    return tuple(Scene(FAMILIES[index % len(FAMILIES)], seed_of(split, index)) for index in range(count))


@dataclass(frozen=True)
class SampleRecord:
    """One instant: what was true, what each policy planned, and what the first one saw; all in base_link at t0.

    expert: [6, 3] x, y, yaw every 0.5 s. obstacles: for each of these times the boxes [A, 5] (x, y, yaw, length,
    width) of all others. plans: by policy [6, 3], None where no plan came. scores: of those plans. agents, found: the
    road users that were there and those that were named. detections: see `detection.detections_of`. line_cells,
    mask_cells: int [4, 3], `map_overlap.cell_counts` of the plan's polylines and of the network's masks, which are
    None where the policy does not tell them.
    """

    token: str
    expert: Array
    obstacles: tuple[Array, ...]
    plans: dict[str, Array | None]
    scores: dict[str, DriverScore | None]
    agents: tuple[AgentLabel, ...]
    found: tuple[Agent, ...]
    detections: tuple[Agent, ...]
    line_cells: NDArray[np.int64]
    mask_cells: NDArray[np.int64] | None


@dataclass(frozen=True)
class SceneRecord:
    """One scene, its samples in order. moments: the first policy's worst, beside the truth."""

    scene: Scene
    samples: tuple[SampleRecord, ...]
    moments: tuple[ShownMoment, ...] = ()


def record_scenes(
    sources: Sequence[str],
    scenes: Sequence[Scene],
    *,
    samples: int,
    loading: Loading = ON_CPU,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SceneRecord]:
    """Every scene recorded with the policies of these names or folders, in as many processes.

    Raises CheckpointError for a policy that cannot be loaded, before any process starts, and EvaluationError.
    """
    for source in sources:
        load_greedy(source, **vars(loading))
    work = partial(_record, sources=tuple(sources), samples=samples, loading=loading)
    return spread(work, scenes, processes=processes, progress=progress)


def _record(scene: Scene, *, sources: tuple[str, ...], samples: int, loading: Loading) -> SceneRecord:
    policies = loaded_policies(sources, loading)
    return record_scene(scene, policies, renderer_for(next(iter(policies.values()))), samples=samples)


def record_scene(
    scene: Scene, policies: Mapping[str, DrivingPolicy], renderer: Renderer, *, samples: int
) -> SceneRecord:
    """Up to so many samples, two a second; every policy forgets the scene before. What the first one saw is kept."""
    for policy in policies.values():
        policy.reset()
    observer = next(iter(policies.values()))
    grid = observer.map_grid if isinstance(observer, TellsMap) else GRID
    records, moments = [], []
    for world, sample in drive_scene(scene, renderer, samples=samples):
        plans = {name: _plan(policy, sample) for name, policy in policies.items()}
        poses = {name: None if plan is None else scored_poses(plan) for name, plan in plans.items()}
        first = next(iter(plans.values()))
        labels, elements = sample.agents, sample.map_elements
        assert labels is not None
        assert elements is not None  # the world always tells
        mount = sample.observation.rig.lidar_to_base
        future = roll_out(world)
        scored = world_scene(world, future)
        true_cells = polyline_cells(elements, mount, grid)
        result = observer.map_result if isinstance(observer, TellsMap) and first is not None else None
        marked = np.zeros_like(true_cells) if result is None else mask_cells(result)
        records.append(
            SampleRecord(
                token=sample.token,
                expert=sample.future,
                obstacles=obstacle_boxes(world, future),
                plans=poses,
                scores={
                    name: None if plan is None else driver_score(plan.trajectory, scored, horizon_s=SCORED_S)
                    for name, plan in plans.items()
                },
                agents=labels,
                found=() if first is None else first.agents,
                detections=() if first is None else detections_of(observer, first),
                line_cells=cell_counts(
                    polyline_cells(() if first is None else first.map_elements, mount, grid), true_cells
                ),
                mask_cells=cell_counts(marked, true_cells) if isinstance(observer, TellsMap) else None,
            )
        )
        planned = next(iter(poses.values()))
        if first is not None and planned is not None:
            moments.append(
                shown_moment(
                    sample.scene,
                    world.time_ns * 1e-9,
                    observation=sample.observation,
                    plan=first,
                    planned=planned,
                    reference=sample.future,
                    agents=labels,
                    elements=elements,
                )
            )
    return SceneRecord(scene, tuple(records), keep_worst(moments))


def drive_scene(scene: Scene, renderer: Renderer, *, samples: int) -> Iterator[tuple[World, DrivingSample]]:
    """The world at each sample, not to be changed, and the sample, up to the goal at most."""
    sampler = WorldSampler(make_scenario(scene.family, scene.seed), renderer)
    world = World(sampler.scenario)
    for sample in sampler.follow(world, samples):
        yield world, sample


def poses_of(plan: Plan) -> Array:
    """[N, 3] x, y, yaw."""
    return np.column_stack([plan.trajectory.xy, plan.trajectory.yaw])


def scored_poses(plan: Plan) -> Array:
    """[6, 3] x, y, yaw at the times of a sample's future, for which the truth is known; a plan may go on after them.

    Raises EvaluationError for a plan that has no points at those times.
    """
    times, count = plan.trajectory.times, len(FUTURE_TIMES_S)
    if len(times) < count or not np.allclose(times[:count], FUTURE_TIMES_S, atol=1e-3):
        raise EvaluationError(
            f"a plan has points at {times.tolist()} s; only one with {FUTURE_TIMES_S} s can be scored"
        )
    return poses_of(plan)[:count]


def obstacle_boxes(world: World, future: Future) -> tuple[Array, ...]:
    """For each time of the future the boxes [A, 5] (x, y, yaw, length, width) of who is there, in base_link now."""
    ego, sizes = world.ego, world.traffic.boxes()[:, 3:5]
    cosine, sine = np.cos(ego.yaw), np.sin(ego.yaw)
    boxes = []
    for poses, present in zip(future.actors, future.present, strict=True):
        x, y, yaw = poses[present].T
        dx, dy = x - ego.x, y - ego.y
        around = [dx * cosine + dy * sine, dy * cosine - dx * sine, wrap_angle(yaw - ego.yaw)]
        boxes.append(np.column_stack([*around, sizes[present]]))
    return tuple(boxes)


def _plan(policy: DrivingPolicy, sample: DrivingSample) -> Plan | None:
    try:
        return policy.plan(sample.observation)
    except PlanError:
        return None


def display_names(sources: Sequence[str]) -> dict[str, str]:
    """Short names of policy names and folders: without the way to a folder where that tells them apart."""
    short = [Path(source).name for source in sources]
    return {source: name if short.count(name) == 1 else source for source, name in zip(sources, short, strict=True)}


def load_greedy(source: str, **options: Any) -> DrivingPolicy:
    """A policy that does not spend time on the spread of its plans. Raises CheckpointError."""
    return load_policy(source) if kind_of(source) in BASELINES else load_policy(source, samples=0, **options)


def work_on_one_core() -> None:
    """Keeps torch to one thread: the processes share the cores, and sums come out alike everywhere."""
    import torch

    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def loaded_policies(sources: tuple[str, ...], loading: Loading) -> dict[str, DrivingPolicy]:
    """The policies of this process by their names here, loaded once."""
    names = display_names(sources)
    policies = {name: load_greedy(source, **vars(loading)) for source, name in names.items()}
    work_on_one_core()
    return policies


@lru_cache(maxsize=1)
def loaded_renderer(width: int, height: int) -> Renderer:
    """The renderer of this process."""
    return Renderer(nuscenes_rig(width, height))


def renderer_for(policy: DrivingPolicy) -> Renderer:
    """One that draws what a policy needs."""
    width, height = policy.info.image_size
    return loaded_renderer(max(width, IMAGE_SIZE[0]), max(height, IMAGE_SIZE[1]))


def spread(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    processes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
    """The results in the order of the tasks, whatever the number of processes; progress: done and total.

    work: a function of a module, which runs in fresh processes. Raises EvaluationError where a process dies, and what
    `work` raises.
    """
    if processes < 1:
        raise EvaluationError(f"{processes} processes cannot work; give 1 or more")
    results: list[Result] = []
    try:
        for result in worked(work, [(task,) for task in tasks], processes=processes):
            results.append(result)
            progress(len(results), len(tasks))
    except WorkerDied as error:
        raise EvaluationError(str(error)) from None
    return results
