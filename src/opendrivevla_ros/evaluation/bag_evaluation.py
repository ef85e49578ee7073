"""A policy beside the human who drove a bag: no labels are needed, the vehicle's own motion is the reference.

Every half second the policy plans from what was recorded, and its plan is held against where the human then drove. The
human is no truth: where both differ, somebody has to look; that is what the events are for.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from opendrivevla_ros.core.geometry import Array, invert, wrap_angle
from opendrivevla_ros.core.plan import Plan, PlanError
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S, Trajectory
from opendrivevla_ros.datasets.bag_samples import bag_samples
from opendrivevla_ros.datasets.bag_topics import find_input_topics
from opendrivevla_ros.datasets.bags import BagError, BagReader
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.evaluation.comfort import comfort
from opendrivevla_ros.evaluation.moments import ShownMoment, candidates, keep_worst, shown_moment
from opendrivevla_ros.evaluation.open_loop import stp3_convention, uniad_convention
from opendrivevla_ros.evaluation.plan_tracker import track
from opendrivevla_ros.evaluation.world_scenes import EvaluationError, spread, work_on_one_core
from opendrivevla_ros.policies.registry import BLIND, load_policy
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.uncertainty import GOOD_METRES, area_under_curve, expected_calibration_error

SPEED_BANDS = (0.5, 3.0, 6.0, 10.0, 15.0)  # m/s, between bands
TURN = np.radians(15.0)  # of heading in 3 s, beyond which the human turns
EVENT_METRES = 2.0  # from where the human was, at any of the six points
EVENT_GAP_S = 3.0  # moments of one event are not further apart
HISTOGRAM_METRES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # between its bins
MOST_EVENTS = 50


@dataclass(frozen=True)
class BagTask:
    """A bag, and how it is read."""

    path: Path
    rig: CameraRig
    topic_map: Mapping[str, str] | None = None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Moment:
    """A plan beside the human, in base_link at its stamp.

    bag, seek_s: where to look, seconds from the bag's start. plan, human: [6, 3] x, y, yaw; baselines: [6, 2] of blind
    policies by name. jitter: mean distance from the plan before at equal times, metres; None for a scene's first.
    comfortable, human_comfortable: of both, followed by the tracker. seconds: that the plan took.
    """

    bag: str
    seek_s: float
    stamp_ns: int
    speed: float
    plan: Array
    human: Array
    baselines: Mapping[str, Array]
    confidence: float
    jitter: float | None
    comfortable: bool
    human_comfortable: bool
    seconds: float

    @property
    def distance(self) -> Array:
        """[6] metres."""
        return np.hypot(*(self.plan[:, :2] - self.human[:, :2]).T)

    @property
    def offset(self) -> Array:
        """[6, 2] metres that the plan is ahead of the human, and to the left, in the human's heading at each point."""
        off, yaw = self.plan[:, :2] - self.human[:, :2], self.human[:, 2]
        along = off[:, 0] * np.cos(yaw) + off[:, 1] * np.sin(yaw)
        return np.column_stack([along, off[:, 1] * np.cos(yaw) - off[:, 0] * np.sin(yaw)])

    @property
    def turn(self) -> str:
        """What the human does within 3 s."""
        turned = self.human[-1, 2]
        return "straight" if abs(turned) < TURN else "left" if turned > 0 else "right"


@dataclass(frozen=True)
class BagRecord:
    """What came of one bag. failures: plans that did not come, by reason. unknown: moments whose human future ends
    before 3 s, which count nowhere. problem: why there is nothing; empty where there is. shown: the worst moments.
    weights: hash of what planned.
    """

    bag: str
    moments: tuple[Moment, ...] = ()
    failures: Mapping[str, int] | None = None
    unknown: int = 0
    problem: str = ""
    shown: tuple[ShownMoment, ...] = ()
    weights: str = ""


def evaluate_bags(
    policy: str,
    tasks: Sequence[BagTask],
    *,
    device: str = "cpu",
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[BagRecord]:
    """Every bag's record, as many bags at a time as there are processes.

    Raises CheckpointError for a policy that cannot be loaded, EvaluationError for a bag that is given twice.
    """
    twice = [path for path, count in Counter(task.path.resolve() for task in tasks).items() if count > 1]
    if twice:
        raise EvaluationError(f"{twice[0]} is given twice, and would count twice; give every bag once")
    work = partial(_record, policy=policy, device=device)
    return spread(work, tasks, processes=processes, progress=progress)


@lru_cache(maxsize=1 + len(BLIND))
def _loaded(policy: str, device: str) -> DrivingPolicy:
    loaded = load_policy(policy, device=device)
    work_on_one_core()
    return loaded


def _record(task: BagTask, *, policy: str, device: str) -> BagRecord:
    try:
        return record_bag(task, _loaded(policy, device), {name: _loaded(name, "cpu") for name in BLIND})
    except BagError as error:
        return BagRecord(str(task), problem=str(error))


def record_bag(task: BagTask, policy: DrivingPolicy, beside: Mapping[str, DrivingPolicy]) -> BagRecord:
    """A policy, and blind ones by name, beside the human of one bag.

    Raises BagError for a bag that cannot be read, or gives no moment.
    """
    moments: list[Moment] = []
    shown: list[ShownMoment] = []
    failures: Counter[str] = Counter()
    unknown = 0
    before: tuple[DrivingSample, Trajectory] | None = None
    with BagReader(task.path) as bag:
        inputs = find_input_topics(bag, task.topic_map)
        for sample in bag_samples(bag, inputs, task.rig, image_size=policy.info.image_size):
            if sample.index == 0:
                policy.reset()
                before = None
            began = time.perf_counter()
            try:
                plan = policy.plan(sample.observation)
                seconds = time.perf_counter() - began
                baselines = {name: blind.plan(sample.observation).trajectory.xy for name, blind in beside.items()}
            except PlanError as error:
                failures[error.failure.name.lower()] += 1
                before = None
                continue
            if sample.future_mask.all():
                moments.append(_moment(task, bag.start_ns, sample, plan, baselines, before, seconds))
                shown = candidates([*shown, _shown(moments[-1], sample, plan)])
            else:
                unknown += 1
            before = (sample, plan.trajectory)
    shown_moments, weights = keep_worst(shown), policy.info.weights_hash
    return BagRecord(str(task), tuple(moments), dict(failures), unknown, shown=shown_moments, weights=weights)


def _shown(moment: Moment, sample: DrivingSample, plan: Plan) -> ShownMoment:
    """With the agents and lines that the plan named: a bag has no labels."""
    return shown_moment(
        moment.bag,
        moment.seek_s,
        observation=sample.observation,
        plan=plan,
        planned=moment.plan,
        reference=moment.human,
        agents=plan.agents,
        elements=plan.map_elements,
    )


def _moment(
    task: BagTask,
    start_ns: int,
    sample: DrivingSample,
    made: Plan,
    baselines: Mapping[str, Array],
    before: tuple[DrivingSample, Trajectory] | None,
    seconds: float,
) -> Moment:
    ego, plan = sample.observation.ego, made.trajectory
    times = np.asarray(FUTURE_TIMES_S)
    return Moment(
        bag=str(task),
        seek_s=max(0.0, (sample.observation.stamp_ns - start_ns) * 1e-9),
        stamp_ns=sample.observation.stamp_ns,
        speed=ego.speed,
        plan=_course(plan).at(times),
        human=sample.future,
        baselines=baselines,
        confidence=made.confidence,
        jitter=None if before is None else _jitter(before, sample, plan),
        comfortable=_comfortable(plan, ego.speed),
        human_comfortable=_comfortable(Trajectory.from_waypoints(times, sample.future[:, :2], ego.speed), ego.speed),
        seconds=seconds,
    )


def _jitter(before: tuple[DrivingSample, Trajectory], sample: DrivingSample, plan: Trajectory) -> float:
    then, old = before
    now = sample.observation
    since_s = (now.stamp_ns - then.observation.stamp_ns) * 1e-9
    shared = np.arange(0.5, old.times[-1] - since_s + 1e-9, 0.5)
    if not len(shared):
        return 0.0
    to_now = invert(now.ego.base_to_world) @ then.observation.ego.base_to_world
    apart = _course(plan).at(shared)[:, :2] - Course.seen_from(old, to_now, since_s).at(shared)[:, :2]
    return float(np.hypot(*apart.T).mean())


def _course(plan: Trajectory) -> Course:
    return Course.seen_from(plan, np.eye(4), 0.0)


def _comfortable(plan: Trajectory, speed: float) -> bool:
    """Over as long as the human's way is known, so that a longer plan is judged alike."""
    return comfort(track(plan, max(speed, 0.0), horizon_s=min(float(plan.times[-1]), FUTURE_TIMES_S[-1]))).comfortable


def bag_results(records: Sequence[BagRecord]) -> dict[str, Any]:
    """All figures, ready for JSON. Raises EvaluationError where no bag gave a plan beside a human's way."""
    moments = [moment for record in records for moment in record.moments]
    if not moments:
        problems = "; ".join(record.problem for record in records if record.problem)
        raise EvaluationError(f"no plan could be held against a human's way ({problems or 'the bags are too short'})")
    confidence = np.array([moment.confidence for moment in moments])
    good = np.array([moment.distance[-1] <= GOOD_METRES for moment in moments])
    jitter = [moment.jitter for moment in moments if moment.jitter is not None]
    failures: Counter[str] = Counter()
    for record in records:
        failures.update(record.failures or {})
    return {
        "bags": [
            {"bag": record.bag, "plans": len(record.moments), "unknown": record.unknown, "problem": record.problem}
            for record in records
        ],
        "plans": len(moments),
        "failures": dict(failures),
        "unknown": sum(record.unknown for record in records),
        "all": _errors(moments),
        "distances": _histogram([float(moment.distance.max()) for moment in moments]),
        "by_speed": {name: _errors(some) for name, some in _by_speed(moments).items() if some},
        "by_turn": {
            turn: _errors(some)
            for turn in ("straight", "left", "right")
            if (some := [moment for moment in moments if moment.turn == turn])
        },
        "comfortable": float(np.mean([moment.comfortable for moment in moments])),
        "human_comfortable": float(np.mean([moment.human_comfortable for moment in moments])),
        "jitter": _quantiles(jitter),
        "latency_s": _quantiles([moment.seconds for moment in moments]),
        "confidence": {
            "bad_share": float((~good).mean()),
            "calibration_error": expected_calibration_error(np.clip(confidence, 0.0, 1.0), good),
            "area": _finite(area_under_curve(confidence, good)),
        },
        "events": events(moments),
    }


def events(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    """Where plan and human differ most, worst first, each once: what to look at, and where it is in which bag."""
    found: list[list[Moment]] = []
    for moment in sorted(moments, key=lambda one: (one.bag, one.seek_s)):
        if moment.distance.max() < EVENT_METRES:
            continue
        last = found[-1][-1] if found else None
        if last is not None and last.bag == moment.bag and moment.seek_s - last.seek_s <= EVENT_GAP_S:
            found[-1].append(moment)
        else:
            found.append([moment])
    worst = [max(group, key=lambda one: float(one.distance.max())) for group in found]
    worst.sort(key=lambda one: -float(one.distance.max()))
    return [
        {
            "bag": one.bag,
            "seek_s": round(one.seek_s, 2),
            "stamp_ns": one.stamp_ns,
            "metres": round(float(one.distance.max()), 2),
            "ahead": round(float(one.offset[-1, 0]), 2),
            "left": round(float(one.offset[-1, 1]), 2),
            "speed": round(one.speed, 2),
            "turn": one.turn,
            "confidence": round(one.confidence, 3),
        }
        for one in worst[:MOST_EVENTS]
    ]


def _errors(moments: Sequence[Moment]) -> dict[str, Any]:
    distance = np.stack([moment.distance for moment in moments])
    offset = np.stack([moment.offset[-1] for moment in moments])
    heading = np.abs([float(wrap_angle(moment.plan[-1, 2] - moment.human[-1, 2])) for moment in moments])
    return {
        "plans": len(moments),
        "l2": {second: float(distance[:, 2 * second - 1].mean()) for second in (1, 2, 3)},
        "uniad": uniad_convention(distance).average,
        "stp3": stp3_convention(distance).average,
        "baselines": {name: _averages(name, moments) for name in moments[0].baselines},
        "lengthwise": float(np.abs(offset[:, 0]).mean()),
        "ahead": float(offset[:, 0].mean()),
        "sideways": float(np.abs(offset[:, 1]).mean()),
        "left": float(offset[:, 1].mean()),
        "heading": float(heading.mean()),
    }


def _averages(baseline: str, moments: Sequence[Moment]) -> dict[str, float]:
    away = (moment.baselines[baseline] - moment.human[:, :2] for moment in moments)
    distance = np.stack([np.hypot(*off.T) for off in away])
    return {"uniad": uniad_convention(distance).average, "stp3": stp3_convention(distance).average}


def _histogram(distances: Sequence[float]) -> dict[str, Any]:
    """Plans by their greatest distance from the human: below the first of `metres`, between two, from the last on."""
    bins = np.searchsorted(HISTOGRAM_METRES, distances, side="right")
    counts = np.bincount(bins, minlength=len(HISTOGRAM_METRES) + 1)
    return {"metres": list(HISTOGRAM_METRES), "counts": counts.tolist()}


def _by_speed(moments: Sequence[Moment]) -> dict[str, list[Moment]]:
    edges = (-np.inf, *SPEED_BANDS, np.inf)
    return {
        f"{max(low, 0):g} to {high:g} m/s" if np.isfinite(high) else f"{low:g} m/s and more": [
            moment for moment in moments if low <= moment.speed < high
        ]
        for low, high in pairwise(edges)
    }


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {name: float(np.quantile(values, share)) for name, share in (("p50", 0.5), ("p95", 0.95))}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
