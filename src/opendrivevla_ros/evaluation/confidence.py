"""How much a policy's confidence is worth, and the calibration that makes it worth more.

A plan is good where its point 3 s ahead is no further than GOOD_METRES from where the expert drives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from opendrivevla_ros.core.plan import Doubt, PlanError
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.evaluation.figures import json_text, markdown_table
from opendrivevla_ros.evaluation.world_scenes import (
    ON_CPU,
    EvaluationError,
    Loading,
    Scene,
    display_names,
    drive_scene,
    evaluation_scenes,
    renderer_for,
    scored_poses,
    spread,
    work_on_one_core,
)
from opendrivevla_ros.policies.registry import BASELINES, kind_of, load_policy
from opendrivevla_ros.safety.uncertainty import (
    GOOD_METRES,
    Calibration,
    Map,
    area_under_curve,
    expected_calibration_error,
    reliability,
    score,
)
from opendrivevla_ros.world.seeds import Split

SAMPLES = 20  # moments of a scene, two a second


@dataclass(frozen=True)
class SurePlan:
    """One plan: how sure it was, what of, and how far its point at 3 s was off, metres."""

    confidence: float
    doubt: Doubt
    error: float

    @property
    def good(self) -> bool:
        """Whether it ended where it should have."""
        return self.error <= GOOD_METRES


@dataclass(frozen=True)
class ConfidenceResult:
    """Figures of `plans` plans. calibration_error: expected, of the confidence. area: under the ROC curve of telling
    bad plans by it; NaN where all were good, or none. bad_share: of plans. thresholds: (least confidence, share of all
    plans below it, share of the bad ones below it). reliability: (mean confidence, share of good plans, plans) of
    each bin of confidence that has any.
    """

    policy: str
    scenes: int
    plans: int
    bad_share: float
    calibration_error: float
    area: float
    thresholds: tuple[tuple[float, float, float], ...]
    reliability: tuple[tuple[float, float, int], ...]

    def to_json(self) -> str:
        return json_text(self)

    def markdown(self) -> str:
        """The tables."""
        head = markdown_table(
            (
                "confidence",
                "plans",
                "off by more than 2 m at 3 s",
                "expected calibration error",
                "area under the curve",
            ),
            [
                (
                    self.policy,
                    str(self.plans),
                    f"{100 * self.bad_share:.1f} %",
                    f"{self.calibration_error:.3f}",
                    f"{self.area:.3f}",
                )
            ],
        )
        rows = [
            (f"{least:g}", f"{100 * all_of:.1f} %", f"{100 * bad:.1f} %") for least, all_of, bad in self.thresholds
        ]
        table = markdown_table(("confidence below", "of all plans", "of the bad ones"), rows)
        return f"### Confidence ({self.scenes} scenes)\n\n{head}\n{table}"


def sure_plans(
    policy: str,
    scenes: Sequence[Scene],
    *,
    loading: Loading = ON_CPU,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SurePlan]:
    """Every plan of a policy beside the driving expert, samples drawn as by default.

    Raises CheckpointError for a policy that cannot be loaded, EvaluationError for one without doubts.
    """
    if kind_of(policy) in BASELINES:
        raise EvaluationError(f"{policy} has no doubts to measure; give a checkpoint of OpenDriveVLA")
    load_policy(policy, **vars(loading))
    found = spread(partial(_record, policy=policy, loading=loading), scenes, processes=processes, progress=progress)
    return [plan for of_scene in found for plan in of_scene]


def evaluate_confidence(
    policy: str,
    *,
    scenes: int,
    loading: Loading = ON_CPU,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ConfidenceResult:
    """Figures on test seeds, families by turns; see `sure_plans` for what it raises."""
    plans = sure_plans(policy, evaluation_scenes(scenes), loading=loading, processes=processes, progress=progress)
    return confidence_result(plans, policy=display_names([policy])[policy], scenes=scenes)


def confidence_result(plans: Sequence[SurePlan], *, policy: str, scenes: int) -> ConfidenceResult:
    """Figures of plans. Raises EvaluationError for none."""
    if not plans:
        raise EvaluationError(f"{policy} made no plan in {scenes} scenes")
    confidence, good = np.array([plan.confidence for plan in plans]), np.array([plan.good for plan in plans])
    bad = max(int((~good).sum()), 1)
    return ConfidenceResult(
        policy=policy,
        scenes=scenes,
        plans=len(plans),
        bad_share=float((~good).mean()),
        calibration_error=expected_calibration_error(confidence, good),
        area=area_under_curve(confidence, good),
        thresholds=tuple(
            (least, float((confidence < least).mean()), float(((confidence < least) & ~good).sum() / bad))
            for least in (0.1, 0.2, 0.3, 0.5)
        ),
        reliability=reliability(confidence, good),
    )


def calibrated(
    policy: str,
    *,
    scenes: int,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Calibration, list[SurePlan]]:
    """A calibration from validation seeds, and the plans that it is made from. Raises CalibrationError as well."""
    plans = sure_plans(policy, evaluation_scenes(scenes, Split.VALIDATION), processes=processes, progress=progress)
    good = [plan.good for plan in plans]
    calibration = Calibration(
        load_policy(policy).info.weights_hash,
        with_samples=Map.fitted([score(plan.doubt) for plan in plans], good),
        without=Map.fitted([score(replace(plan.doubt, spread=None)) for plan in plans], good),
        made_from=f"{len(plans)} plans in {scenes} scenes of validation seeds",
    )
    return calibration, plans


@lru_cache(maxsize=1)
def _loaded(policy: str, loading: Loading) -> DrivingPolicy:
    loaded = load_policy(policy, **vars(loading))
    work_on_one_core()
    return loaded


def _record(scene: Scene, *, policy: str, loading: Loading) -> list[SurePlan]:
    return record_confidence(scene, _loaded(policy, loading))


def record_confidence(scene: Scene, policy: DrivingPolicy) -> list[SurePlan]:
    """The plans of a policy that has doubts, in one scene."""
    policy.reset()
    found = []
    for _, sample in drive_scene(scene, renderer_for(policy), samples=SAMPLES):
        try:
            plan = policy.plan(sample.observation)
        except PlanError:
            continue
        if plan.doubt is not None:
            error = float(np.hypot(*(scored_poses(plan)[-1, :2] - sample.future[-1, :2])))
            found.append(SurePlan(plan.confidence, plan.doubt, error))
    return found
