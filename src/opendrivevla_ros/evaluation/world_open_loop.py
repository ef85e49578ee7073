"""Open loop in the driving world: plans against what the expert then did, and what perception saw on the way.

How plans are held against the truth stands in `plan_scores`; the others are where they really went while the expert
drove.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.evaluation import open_loop
from opendrivevla_ros.evaluation.detection import DetectionScores, detection_scores
from opendrivevla_ros.evaluation.driver_score import DriverScore
from opendrivevla_ros.evaluation.figures import json_text, markdown_table, share
from opendrivevla_ros.evaluation.map_overlap import MapScores, map_scores
from opendrivevla_ros.evaluation.moments import keep_worst, write_moments
from opendrivevla_ros.evaluation.plan_scores import Measure, lidar_path, occupancy, touches
from opendrivevla_ros.evaluation.tracking_identity import IdentityScores, identity_scores
from opendrivevla_ros.evaluation.world_scenes import (
    ON_CPU,
    SCORED_S,
    Loading,
    SampleRecord,
    SceneRecord,
    display_names,
    evaluation_scenes,
    record_scenes,
)
from opendrivevla_ros.safety.road_users import Body
from opendrivevla_ros.world.state import EGO_CENTRE_AHEAD, EGO_LENGTH, EGO_WIDTH

SCENES = 112  # eight of each family
SAMPLES = 20  # of a scene: 10 s
EGO_BODY = Body(EGO_LENGTH / 2 + EGO_CENTRE_AHEAD, EGO_LENGTH / 2 - EGO_CENTRE_AHEAD, EGO_WIDTH / 2)
DRIVER_PARTS = ("no_collision", "drivable", "progress", "time_to_collision", "comfort")


@dataclass(frozen=True)
class PlanScores:
    """One policy's plans. Metres and shares of 1.

    samples: how many plans were asked for; failures: how many did not come, each counted as one that stands still.
    mean_displacement: over all six points. collides: share of plans that touch anyone within 3 s. collision: by step,
    in the true boxes. occupancy: by step, in the published test. Steps where the expert itself would touch are
    excused, as published. driver_score: mean of `driver_score`, 0 for a plan that did not come; driver_parts: mean of
    what it is made of, over the plans that came.
    """

    samples: int
    failures: int
    displacement: Measure
    mean_displacement: float
    collides: float
    collision: Measure
    occupancy: Measure
    driver_score: float
    driver_parts: dict[str, float]


@dataclass(frozen=True)
class OpenLoopResult:
    """policy: the name of the one under test; policies, families: scores by policy, and by family and policy.

    map: of the plans' polylines; map_masks: of the network's masks, where the policy tells them.
    """

    policy: str
    scenes: int
    samples: int
    policies: dict[str, PlanScores]
    families: dict[str, dict[str, PlanScores]]
    detection: DetectionScores
    identity: IdentityScores
    map: MapScores
    map_masks: MapScores | None

    def to_json(self) -> str:
        """All figures."""
        return json_text(self)

    def markdown(self) -> str:
        """The tables that a card shows."""
        return "\n".join(
            [self._plans(), self._driving(), self._families(), self._detection(), self._map(), self._identity()]
        )

    def _plans(self) -> str:
        header = ["", "L2 1 s", "2 s", "3 s", "average", "average to", "six points", "collisions", "occupancy", "none"]
        rows = []
        for name, scores in self.policies.items():
            steps = scores.displacement.uniad
            metres = [steps.one_second, steps.two_seconds, steps.three_seconds, steps.average]
            metres += [scores.displacement.stp3.average, scores.mean_displacement]
            shares = [scores.collides, scores.occupancy.stp3.average]
            rows.append([name, *(f"{x:.2f}" for x in metres), *map(share, shares), str(scores.failures)])
        return (
            f"Open loop, {self.samples} samples of {self.scenes} scenes. L2 in metres at each time (UniAD); `average"
            " to`: over all points up to each time (ST-P3); `collisions`: plans that touch anyone within 3 s;"
            " `occupancy`: the published test, steps (ST-P3); `none`: no plan came.\n\n"
        ) + markdown_table(header, rows)

    def _driving(self) -> str:
        rows = [
            [name, f"{scores.driver_score:.3f}", *(f"{scores.driver_parts[part]:.3f}" for part in DRIVER_PARTS)]
            for name, scores in self.policies.items()
        ]
        header = ["", "driver score", *(part.replace("_", " ") for part in DRIVER_PARTS)]
        text = f"Driver score (PDMS) of the plans' {SCORED_S:.0f} s, followed by an LQR tracker, and its parts.\n\n"
        return text + markdown_table(header, rows)

    def _families(self) -> str:
        names = list(self.policies)
        rows = [
            [
                family,
                *(f"{scores[name].mean_displacement:.2f}" for name in names),
                *(share(scores[name].collides) for name in names),
            ]
            for family, scores in self.families.items()
        ]
        header = ["family", *(f"L2 {name}" for name in names), *(f"collisions {name}" for name in names)]
        return "L2 over the six points, metres, and plans that touch anyone.\n\n" + markdown_table(header, rows)

    def _detection(self) -> str:
        rows = [
            [
                name,
                str(scores.true_boxes),
                *(f"{x:.2f}" for x in (scores.average_precision, *scores.precision_at.values())),
                *(f"{x:.2f}" for x in (scores.translation, scores.scale, scores.orientation, scores.velocity)),
            ]
            for name, scores in self.detection.classes.items()
        ]
        limits = next(iter(self.detection.classes.values())).precision_at if rows else {}
        header = ["class", "boxes", "AP", *(f"AP {limit}" for limit in limits), "ATE", "ASE", "AOE", "AVE"]
        text = f"Detection within {self.detection.range_metres:.0f} m by the official nuScenes code, mean AP"
        return f"{text} {self.detection.mean_average_precision:.2f}.\n\n" + markdown_table(header, rows)

    def _map(self) -> str:
        kinds = {"masks": self.map_masks, "polylines": self.map}
        known = {name: scores.overlap for name, scores in kinds.items() if scores is not None}
        rows = [[name, *(f"{overlap[name]:.2f}" for overlap in known.values())] for name in self.map.overlap]
        return "Map, intersection over union.\n\n" + markdown_table(["class", *known], rows)

    def _identity(self) -> str:
        scores = self.identity
        return (
            f"Identity: {scores.switches} switches in {scores.tracks} true tracks"
            f" ({scores.switches_per_track:.2f} a track), {scores.tracked} of them found,"
            f" {share(scores.recall)} of their instants.\n"
        )


def evaluate_open_loop(
    policy: str,
    *,
    baselines: Sequence[str] = (),
    scenes: int = SCENES,
    samples: int = SAMPLES,
    loading: Loading = ON_CPU,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
    pictures: Path | None = None,
) -> OpenLoopResult:
    """The figures of a policy, by name or folder, beside those of baselines, on test seeds of all families in turn.

    samples: of each scene, two a second. progress: scenes done, and all. pictures: folder that gets the policy's worst
    moments. The figures are the same for any number of processes. Raises CheckpointError for a policy that cannot be
    loaded, EvaluationError where a process dies.
    """
    sources = tuple(dict.fromkeys([policy, *baselines]))
    places = evaluation_scenes(scenes)
    records = record_scenes(sources, places, samples=samples, loading=loading, processes=processes, progress=progress)
    if pictures is not None:
        write_moments(pictures, keep_worst(moment for record in records for moment in record.moments))
    return open_loop_result(records, display_names(sources)[policy])


def open_loop_result(records: Sequence[SceneRecord], policy: str) -> OpenLoopResult:
    """The figures of recorded scenes; `policy`: the one whose perception was kept."""
    samples = [sample for record in records for sample in record.samples]
    masks = [sample.mask_cells for sample in samples if sample.mask_cells is not None]
    judged: dict[str, list[dict[str, JudgedPlan]]] = {}  # by family, for each sample
    for record in records:
        judged.setdefault(record.scene.family, []).extend(judge(sample) for sample in record.samples)
    return OpenLoopResult(
        policy=policy,
        scenes=len(records),
        samples=len(samples),
        policies=_scores([plans for of_family in judged.values() for plans in of_family]),
        families={family: _scores(plans) for family, plans in judged.items()},
        detection=detection_scores((sample.token, sample.agents, sample.detections) for sample in samples),
        identity=identity_scores([(sample.agents, sample.found) for sample in record.samples] for record in records),
        map=map_scores(sample.line_cells for sample in samples),
        map_masks=map_scores(masks) if masks else None,
    )


@dataclass(frozen=True)
class JudgedPlan:
    """One plan against the truth. came: or else it counts as one that stands still.

    distance: [6] metres from the expert. touches, occupied: [6] bool, in the true boxes and in the published test.
    score: None where no plan came.
    """

    came: bool
    distance: Array
    touches: NDArray[np.bool_]
    occupied: NDArray[np.bool_]
    score: DriverScore | None


def judge(sample: SampleRecord) -> dict[str, JudgedPlan]:
    """Every policy's plan of one sample."""
    obstacles = np.concatenate(sample.obstacles)
    instants = np.repeat(np.arange(len(sample.obstacles)), [len(boxes) for boxes in sample.obstacles])
    grids = occupancy(obstacles, instants, len(sample.obstacles))
    excused = touches(sample.expert, obstacles, instants, EGO_BODY)
    judged = {}
    for name, plan in sample.plans.items():
        poses = np.zeros_like(sample.expert) if plan is None else plan
        judged[name] = JudgedPlan(
            came=plan is not None,
            distance=open_loop.displacement(poses[:, :2], sample.expert[:, :2], np.ones((len(poses), 2))),
            touches=touches(poses, obstacles, instants, EGO_BODY) & ~excused,
            occupied=open_loop.collisions(lidar_path(poses), lidar_path(sample.expert), grids).box,
            score=sample.scores[name],
        )
    return judged


def _scores(judged: Sequence[dict[str, JudgedPlan]]) -> dict[str, PlanScores]:
    return {name: plan_scores([plans[name] for plans in judged]) for name in judged[0]}


def plan_scores(plans: Sequence[JudgedPlan]) -> PlanScores:
    """The figures of one policy's plans."""
    distance = np.stack([plan.distance for plan in plans])
    hits = np.stack([plan.touches for plan in plans])
    scores = [plan.score for plan in plans if plan.score is not None]
    return PlanScores(
        samples=len(plans),
        failures=sum(not plan.came for plan in plans),
        displacement=Measure.of(distance),
        mean_displacement=float(distance.mean()),
        collides=float(hits.any(axis=1).mean()),
        collision=Measure.of(hits.astype(np.float64)),
        occupancy=Measure.of(np.stack([plan.occupied for plan in plans]).astype(np.float64)),
        driver_score=sum(score.score for score in scores) / len(plans),
        driver_parts={
            part: float(np.mean([getattr(score, part) for score in scores])) if scores else 0.0
            for part in DRIVER_PARTS
        },
    )
