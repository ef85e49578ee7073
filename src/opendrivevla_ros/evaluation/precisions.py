"""One checkpoint in every precision: what its weights take, how long a plan takes, and how its plans change.

All precisions are in memory at once and plan the same samples of the driving world in turn, so that whatever else the
machine does meanwhile slows them alike. Times count from a picture set to a plan, as `vla_node` plans; they are told
as ratios too, because milliseconds are of one machine at one time.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import PlanError
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.evaluation.figures import markdown_table
from opendrivevla_ros.evaluation.scored_drive import Interval, ScoredDrive, score_drive
from opendrivevla_ros.evaluation.world_scenes import (
    EvaluationError,
    Scene,
    drive_scene,
    evaluation_scenes,
    load_greedy,
    poses_of,
    renderer_for,
    spread,
    work_on_one_core,
)
from opendrivevla_ros.policies.autovla.policy import AutoVlaPolicy
from opendrivevla_ros.policies.loading import check_device
from opendrivevla_ros.policies.opendrivevla.policy import OpenDriveVlaPolicy
from opendrivevla_ros.policies.registry import PRECISIONS, load_policy

FULL, HALF = "float32", "bfloat16"  # what bytes, times and plans are compared with
Progress = Callable[[float], None]
Quantised = OpenDriveVlaPolicy | AutoVlaPolicy  # who have a language model


@dataclass(frozen=True)
class Driving:
    """Closed loop: mean driver score of the plans that were driven, 0 for one that did not come, by scenario.

    interval: 95 %, of the mean over scenarios. passed: scenarios that were driven to the end as they should be.
    """

    scenarios: int
    passed: int
    driver_score: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, drives: Sequence[ScoredDrive]) -> "Driving":
        """Of each scenario's drive."""
        score = Interval.of([one.score for one in drives])
        interval = (max(0.0, score.low), min(1.0, score.high))
        return cls(len(drives), sum(one.passed for one in drives), score.mean, interval)


@dataclass(frozen=True)
class PrecisionFigures:
    """One precision of one checkpoint. language_bytes, whole_bytes: of the weights in memory.

    of_full, of_half: the language model's bytes over those in float32 and bfloat16. load_s: from the files to a
    policy, without imports. plan_p50_ms, plan_p95_ms: of a plan; time_p50, time_p95: the same over those of float32.
    mean_distance, largest_distance: metres between points of the same time in its plans and those of float32.
    failures: plans that did not come; they count nowhere else.
    """

    language_bytes: int
    whole_bytes: int
    of_full: float
    of_half: float
    load_s: float
    plan_p50_ms: float
    plan_p95_ms: float
    time_p50: float
    time_p95: float
    mean_distance: float
    largest_distance: float
    failures: int
    driving: Driving | None


@dataclass(frozen=True)
class Precisions:
    """A checkpoint in every precision. samples: that each of them planned; threads: of torch, while they did."""

    checkpoint: str
    model_id: str
    weights_hash: str
    trained: bool
    device: str
    threads: int
    scenes: int
    samples: int
    precisions: dict[str, PrecisionFigures]

    def markdown(self) -> str:
        """The tables, of weights and of plans, and what their columns are."""
        scored = next(iter(self.precisions.values())).driving
        weights, plans = [], []
        for name, row in self.precisions.items():
            weights.append(
                [
                    name,
                    f"{row.language_bytes / 1e6:.2f}",
                    f"{row.of_full:.3f}",
                    f"{row.of_half:.3f}",
                    f"{row.whole_bytes / 1e6:.2f}",
                    f"{row.load_s:.2f}",
                ]
            )
            cells = [
                name,
                f"{row.plan_p50_ms:.0f}, {row.plan_p95_ms:.0f}",
                f"{row.time_p50:.2f}, {row.time_p95:.2f}",
                f"{row.mean_distance:.3f}, {row.largest_distance:.2f}",
                str(row.failures),
            ]
            if row.driving is not None:
                low, high = row.driving.interval
                cells.append(f"{row.driving.driver_score:.3f} ({low:.3f} to {high:.3f})")
                cells.append(f"{row.driving.passed} of {row.driving.scenarios}")
            plans.append(cells)
        of_weights = (
            f"{self.checkpoint}{'' if self.trained else ', untrained'}, on {self.device} with {self.threads} torch"
            f" thread{'s' if self.threads > 1 else ''}. `MB`: the language model's weights, and what they are of those"
            f" in {FULL} and {HALF}; `all MB`: with perception's or vision's."
        )
        of_plans = (
            f"{self.samples} samples of {self.scenes} scenes of the driving world, which all plan in turn. `ms`: of a"
            f" plan, p50, p95; `times`: those over {FULL}'s; `metres`: from {FULL}'s plan, mean, largest; `none`: no"
            " plan came."
        )
        if scored:
            of_plans += (
                f" `driver score`: of what is planned at the wheel, mean of {scored.scenarios} scenarios (95 %"
                " interval); `passed`: driven to the end as they should be."
            )
        sizes = markdown_table(["", "MB", f"of {FULL}", f"of {HALF}", "all MB", "load s"], weights)
        measured = ["", "ms", "times", "metres", "none", *(["driver score", "passed"] if scored else [])]
        return f"{of_weights}\n\n{sizes}\n{of_plans}\n\n{markdown_table(measured, plans)}"


@dataclass
class _Measured:
    """What is gathered of one precision while it plans. paths: [N, 2] of each sample, None where no plan came."""

    policy: Quantised
    load_s: float
    seconds: list[float] = field(default_factory=list)
    paths: list[Array | None] = field(default_factory=list)

    def plan(self, observation: Observation) -> None:
        started = time.perf_counter()
        try:
            path = poses_of(self.policy.plan(observation))[:, :2]
        except PlanError:
            self.paths.append(None)
            return
        self.seconds.append(time.perf_counter() - started)
        self.paths.append(path)


def compare_precisions(
    checkpoint: str,
    *,
    device: str = "cpu",
    scenes: int,
    samples: int,
    scenarios: int = 0,
    processes: int = 2,
    progress: Progress = lambda share: None,
) -> Precisions:
    """Every precision of a policy by name or folder, on test seeds of the driving world.

    samples: of each scene, two a second. scenarios: that each precision drives as well, in so many processes, for the
    driver score. progress: told the share that is done. Raises CheckpointError for a policy that cannot be loaded or
    a device that a precision does not run on, EvaluationError for a policy without a language model or without plans.
    """
    places = evaluation_scenes(scenes)
    driven = evaluation_scenes(scenarios) if scenarios else ()
    check_device(device, "int8")  # before anything is loaded; it imports torchao, which is no part of the time to load
    measured = {precision: _loaded(checkpoint, device, precision) for precision in PRECISIONS}
    part = 0.5 if driven else 1.0
    _plan_in_turn(tuple(measured.values()), places, samples, lambda share: progress(part * share))
    if silent := [precision for precision, one in measured.items() if not one.seconds]:
        raise EvaluationError(f"{checkpoint} gave no plan at all in {silent[0]}, so there is nothing to compare")
    threads = torch.get_num_threads()
    driving = _drive_all(checkpoint, device, driven, processes, lambda share: progress(part + part * share))
    full, info = measured[FULL], measured[FULL].policy.info
    weights = {precision: one.policy.weight_bytes for precision, one in measured.items()}
    times = {precision: np.percentile(one.seconds, (50, 95)) for precision, one in measured.items()}
    figures = {}
    for precision, one in measured.items():
        distances = _distances(one.paths, full.paths)
        p50, p95 = times[precision]
        figures[precision] = PrecisionFigures(
            language_bytes=weights[precision].language,
            whole_bytes=weights[precision].whole,
            of_full=weights[precision].language / weights[FULL].language,
            of_half=weights[precision].language / weights[HALF].language,
            load_s=one.load_s,
            plan_p50_ms=1e3 * float(p50),
            plan_p95_ms=1e3 * float(p95),
            time_p50=float(p50 / times[FULL][0]),
            time_p95=float(p95 / times[FULL][1]),
            mean_distance=float(distances.mean()),
            largest_distance=float(distances.max()),
            failures=sum(path is None for path in one.paths),
            driving=driving.get(precision),
        )
    return Precisions(
        checkpoint=checkpoint,
        model_id=info.model_id,
        weights_hash=info.weights_hash,
        trained=info.trained,
        device=device,
        threads=threads,
        scenes=len(places),
        samples=len(full.paths),
        precisions=figures,
    )


def _loaded(checkpoint: str, device: str, precision: str) -> _Measured:
    started = time.perf_counter()
    policy = load_policy(checkpoint, device=device, precision=precision)
    load_s = time.perf_counter() - started
    if not isinstance(policy, Quantised):
        raise EvaluationError(
            f"{checkpoint} has no language model to be in a precision; give an OpenDriveVLA or an AutoVLA"
        )
    return _Measured(policy, load_s)


def _plan_in_turn(measured: Sequence[_Measured], places: Sequence[Scene], samples: int, progress: Progress) -> None:
    """Lets all plan every sample. Who begins changes: who comes first finds the observation in no cache."""
    renderer = renderer_for(measured[0].policy)
    asked = 0
    for done, scene in enumerate(places):
        for one in measured:
            one.policy.reset()
        for _, sample in drive_scene(scene, renderer, samples=samples):
            if not asked:  # what is made on the first call is no part of a plan's time
                for one in measured:
                    one.plan(sample.observation)
                    one.policy.reset()
                    one.seconds.clear()
                    one.paths.clear()
            for place in range(len(measured)):
                measured[(asked + place) % len(measured)].plan(sample.observation)
            asked += 1
        progress((done + 1) / len(places))


def _distances(paths: Sequence[Array | None], others: Sequence[Array | None]) -> Array:
    """Metres between the points of plans of the same samples, where both came; none: not a number."""
    both = [(path, other) for path, other in zip(paths, others, strict=True) if path is not None and other is not None]
    if not both:
        return np.array([np.nan])
    return np.concatenate([np.hypot(*(path - other).T) for path, other in both])


@dataclass(frozen=True)
class _Task:
    checkpoint: str
    device: str
    precision: str
    scene: Scene

    def __str__(self) -> str:
        return f"{self.checkpoint} in {self.precision} in {self.scene.family} {self.scene.seed}"


def _drive_all(
    checkpoint: str, device: str, scenes: Sequence[Scene], processes: int, progress: Progress
) -> dict[str, Driving]:
    """Every precision drives every scenario; empty without scenarios."""
    if not scenes:
        return {}
    tasks = [_Task(checkpoint, device, precision, scene) for precision in PRECISIONS for scene in scenes]
    drives = spread(_drive, tasks, processes=processes, progress=lambda done, total: progress(done / total))
    count = len(scenes)
    return {
        precision: Driving.of(drives[index * count : (index + 1) * count])
        for index, precision in enumerate(PRECISIONS)
    }


@lru_cache(maxsize=1)
def _driver(checkpoint: str, device: str, precision: str) -> DrivingPolicy:
    """The policy that this process used last; tasks come precision by precision."""
    policy = load_greedy(checkpoint, device=device, precision=precision)
    work_on_one_core()
    return policy


def _drive(task: _Task) -> ScoredDrive:
    return score_drive(_driver(task.checkpoint, task.device, task.precision), task.scene)
