"""Open loop on nuScenes as papers print it: displacement and collision rates, in both conventions, of every policy.

The references are where LIDAR_TOP was at the next six keyframes. Averages are over all samples: a step that lies
beyond its scene's end counts as 0, in the displacement and in the collision rates, as published; how many there are is
told. A plan that did not come counts as one that stands still, and is told too.

The published collision test looks at whole cells under a box that is never turned; its grids are drawn here from the
boxes, by cell centres and without those of the lowest visibility, so that its figures are near those from the
published tables, which were drawn by another rule, but not equal to them. The better test turns the ego's box as the
plan turns it, and holds it against all true boxes, hidden ones too. Steps where the reference itself touches are
excused in both.

A plan's lidar path follows from its poses in base_link. A plan that was made from the lidar's true path comes back
5 mm from it on average (1,500 drives of the synthetic world).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.evaluation import open_loop
from opendrivevla_ros.evaluation.nuscenes_records import STEPS, SampleRecord, SceneRecord
from opendrivevla_ros.evaluation.plan_scores import Measure, lidar_path, occupancy, touches
from opendrivevla_ros.safety.road_users import Body

VEHICLES = ("car", "truck", "construction_vehicle", "bus", "trailer", "motorcycle", "bicycle")  # UniAD's
PEDESTRIANS = ("pedestrian",)
TESTS = {
    "occupancy": "the published test, vehicles",
    "occupancy_all": "the published test, vehicles and pedestrians",
    "collision": "oriented boxes, vehicles",
    "collision_all": "oriented boxes, vehicles and pedestrians",
}


@dataclass(frozen=True)
class PlanFigures:
    """One policy's plans. Metres, and shares of 1.

    samples: how many plans were asked for; failures: how many did not come, reasons: by why. mean_displacement: over
    all six points. collides: share of plans that touch a vehicle or pedestrian within 3 s (oriented boxes). The others
    are the tests of TESTS, by step.
    """

    samples: int
    failures: int
    reasons: dict[str, int]
    displacement: Measure
    mean_displacement: float
    collides: float
    occupancy: Measure
    occupancy_all: Measure
    collision: Measure
    collision_all: Measure


@dataclass(frozen=True)
class OpenLoopFigures:
    """samples: of all policies the same. steps_beyond: of the six times so many, which lie beyond a scene's end.

    reference_touches: samples whose reference itself touches at any step, by test.
    """

    samples: int
    steps_beyond: int
    reference_touches: dict[str, int]
    policies: dict[str, PlanFigures]


def open_loop_figures(records: Sequence[SceneRecord]) -> OpenLoopFigures:
    """The figures of one or more scenes with one or more samples each, all with plans of the same policies."""
    judged = [_judge(record) for record in records]
    samples = [sample for record in records for sample in record.samples]
    policies = {}
    for index, name in enumerate(samples[0].plans):
        reasons = Counter(sample.failures[name] for sample in samples if sample.plans[name] is None)
        distance = np.concatenate([one.distance[index] for one in judged])
        hits = {test: np.concatenate([one.hits[test][index] for one in judged]) for test in TESTS}
        policies[name] = PlanFigures(
            samples=len(samples),
            failures=sum(reasons.values()),
            reasons=dict(reasons),
            displacement=Measure.of(distance),
            mean_displacement=float(distance.mean()),
            collides=float(hits["collision_all"].any(axis=1).mean()),
            **{test: Measure.of(values) for test, values in hits.items()},
        )
    touched = {test: np.concatenate([one.reference_hits[test] for one in judged]).any(axis=1) for test in TESTS}
    return OpenLoopFigures(
        samples=len(samples),
        steps_beyond=sum(int((~sample.mask).sum()) for sample in samples),
        reference_touches={test: int(values.sum()) for test, values in touched.items()},
        policies=policies,
    )


@dataclass(frozen=True)
class _Judged:
    """A scene of S samples and P policies. distance, hits: [P, S, 6], by test; reference_hits: [S, 6], by test."""

    distance: Array
    hits: dict[str, Array]
    reference_hits: dict[str, Array]


def _judge(record: SceneRecord) -> _Judged:
    samples, mount = record.samples, record.lidar_to_base
    reference = np.stack([sample.reference for sample in samples])
    mask = np.stack([sample.mask for sample in samples])
    plans = np.stack([[_poses(sample, name) for sample in samples] for name in samples[0].plans])
    weights = np.broadcast_to(mask[..., None], (*plans.shape[:-1], 2))
    path, true_path = lidar_path(plans, mount), lidar_path(reference, mount)
    distance = open_loop.displacement(path, np.broadcast_to(true_path, path.shape), weights)

    steps = len(samples) * STEPS  # all instants of the scene are worked on at once
    boxes = np.concatenate([sample.boxes for sample in samples])
    instants = np.concatenate([sample.instants + STEPS * index for index, sample in enumerate(samples)])
    pedestrian = np.concatenate([sample.pedestrian for sample in samples])
    seen = ~np.concatenate([sample.hidden for sample in samples])
    vehicles = occupancy(boxes[seen & ~pedestrian], instants[seen & ~pedestrian], steps, mount)
    everyone = vehicles | occupancy(boxes[seen & pedestrian], instants[seen & pedestrian], steps, mount)
    flat_path, flat_true = path.reshape(len(plans), steps, 2), true_path.reshape(1, steps, 2)
    hits, reference_hits = {}, {}
    for test, grids in (("occupancy", vehicles), ("occupancy_all", everyone)):
        excused = open_loop.box_touches(flat_true, grids[None])
        hits[test] = open_loop.box_touches(flat_path, np.broadcast_to(grids, (len(plans), *grids.shape))) & ~excused
        reference_hits[test] = excused[0]
    body = published_body(mount)
    flat_plans, flat_reference = plans.reshape(len(plans), steps, 3), reference.reshape(1, steps, 3)
    for test, chosen in (("collision", ~pedestrian), ("collision_all", np.ones_like(pedestrian))):
        excused = touches(flat_reference, boxes[chosen], instants[chosen], body)
        hits[test] = touches(flat_plans, boxes[chosen], instants[chosen], body) & ~excused
        reference_hits[test] = excused[0]
    shape = (len(samples), STEPS)
    return _Judged(
        distance,
        {test: values.reshape(len(plans), *shape).astype(np.float64) for test, values in hits.items()},
        {test: values.reshape(shape).astype(np.float64) for test, values in reference_hits.items()},
    )


def published_body(lidar_to_base: Array) -> Body:
    """The ego box of the published test, around base_link."""
    ahead = float(lidar_to_base[0, 3]) + open_loop.EGO_CENTRE_FORWARD
    half = open_loop.EGO_LENGTH / 2
    return Body(front=half + ahead, rear=half - ahead, half_width=open_loop.EGO_WIDTH / 2)


def _poses(sample: SampleRecord, policy: str) -> Array:
    plan = sample.plans[policy]
    return np.zeros((STEPS, 3)) if plan is None else plan
