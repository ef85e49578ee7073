"""Open loop in the driving world: perfect plans score perfectly, spoilt ones as they were spoilt."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation.scenes import Oracle, make_renderer

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Agent, Plan
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.evaluation.map_overlap import GRID
from opendrivevla_ros.evaluation.plan_scores import touches
from opendrivevla_ros.evaluation.world_open_loop import EGO_BODY, evaluate_open_loop, open_loop_result
from opendrivevla_ros.evaluation.world_scenes import (
    EvaluationError,
    Scene,
    SceneRecord,
    drive_scene,
    evaluation_scenes,
    obstacle_boxes,
    record_scene,
    renderer_for,
    spread,
)
from opendrivevla_ros.perception.map_head import MapResult
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.world.expert import expert_command, roll_out
from opendrivevla_ros.world.families import FAMILIES
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.seeds import Split, split_of
from opendrivevla_ros.world.vehicle import ego_box

SCENE = Scene("oncoming", 109)
SAMPLES = 4


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return make_renderer()


@pytest.fixture(scope="module")
def record(renderer: Renderer) -> SceneRecord:
    policies = {
        "oracle": Oracle(SCENE, renderer, samples=SAMPLES),
        "aside": Oracle(SCENE, renderer, samples=SAMPLES, change=moved_left),
        "silent": Oracle(SCENE, renderer, samples=SAMPLES, change=lambda plan: None),
        "constant_velocity": ConstantVelocityPolicy(),
        "longer": Oracle(SCENE, renderer, samples=SAMPLES, change=going_on),
    }
    return record_scene(SCENE, policies, renderer, samples=SAMPLES)


def going_on(plan: Plan) -> Plan:
    """Four more points at the last one's speed."""
    xy, speed = plan.trajectory.xy, plan.trajectory.velocity[0]
    more = xy[-1] + np.arange(1, 5)[:, None] * (xy[-1] - xy[-2])
    return replace(plan, trajectory=Trajectory.from_waypoints(np.arange(1, 11) * 0.5, np.vstack([xy, more]), speed))


def moved_left(plan: Plan) -> Plan:
    xy = plan.trajectory.xy + np.array([0.0, 2.0])
    return replace(plan, trajectory=replace(plan.trajectory, xy=xy))


def test_the_experts_own_plan_scores_perfectly_and_touches_nobody(record: SceneRecord) -> None:
    result = open_loop_result([record], "oracle")
    scores = result.policies["oracle"]
    assert scores.samples == SAMPLES
    assert scores.failures == 0
    assert scores.mean_displacement == pytest.approx(0.0, abs=1e-9)
    assert scores.displacement.uniad.average == pytest.approx(0.0, abs=1e-9)
    assert scores.collides == 0.0
    assert scores.occupancy.stp3.average == 0.0
    assert result.policies["constant_velocity"].mean_displacement > 0.05
    assert list(result.families) == ["oncoming"]
    assert result.families["oncoming"] == result.policies


def test_of_a_longer_plan_the_first_three_seconds_are_scored(record: SceneRecord) -> None:
    scores = open_loop_result([record], "oracle").policies
    assert scores["longer"].failures == 0
    assert scores["longer"].mean_displacement == pytest.approx(0.0, abs=1e-9)
    assert scores["longer"].occupancy == scores["oracle"].occupancy
    assert scores["longer"].collides == scores["oracle"].collides
    for sample in record.samples:
        assert sample.plans["longer"].shape == (6, 3)
        assert sample.scores["longer"].seconds == 3.0


def test_a_plan_without_the_scored_times_is_refused_in_one_sentence(renderer: Renderer) -> None:
    def odd(plan: Plan) -> Plan:
        times = np.arange(1, 7) * 0.4
        return replace(plan, trajectory=Trajectory.from_waypoints(times, plan.trajectory.xy, 1.0))

    policy = Oracle(SCENE, renderer, samples=1, change=odd)
    with pytest.raises(EvaluationError, match=r"has points at \[0\.4, "):
        record_scene(SCENE, {"odd": policy}, renderer, samples=1)


def test_what_was_seen_is_scored_against_what_was_there(record: SceneRecord) -> None:
    result = open_loop_result([record], "oracle")
    assert result.detection.classes["car"].average_precision == pytest.approx(1.0, abs=1e-6)
    assert (result.identity.switches, result.identity.recall) == (0, 1.0)
    assert result.identity.tracks > 0
    assert set(result.map.overlap.values()) == {1.0}
    assert result.map_masks is None


class Masked(Oracle):
    """Tells masks too: everything is drivable and there is nothing else."""

    map_grid = GRID

    @property
    def map_result(self) -> MapResult:
        side = self.map_grid.bev_size
        nothing = torch.zeros(0, side, side, dtype=torch.bool)
        everywhere = torch.ones(side, side, dtype=torch.bool)
        return MapResult(nothing, torch.zeros(0, dtype=torch.int64), torch.zeros(0), everywhere, nothing)


@pytest.mark.parametrize("side", [GRID.bev_size, 100])
def test_masks_are_scored_beside_polylines_where_a_policy_tells_them(renderer: Renderer, side: int) -> None:
    policy = Masked(SCENE, renderer, samples=2)
    policy.map_grid = replace(GRID, bev_size=side)
    result = open_loop_result([record_scene(SCENE, {"masked": policy}, renderer, samples=2)], "masked")
    assert set(result.map.overlap.values()) == {1.0}
    assert result.map_masks is not None
    assert result.map_masks.overlap["boundary"] == 0.0
    covered = result.map_masks.true_cells["drivable_area"] / (2 * side**2)
    assert result.map_masks.overlap["drivable_area"] == pytest.approx(covered)
    assert "| class | masks | polylines |" in result.markdown()


class Unsure(Oracle):
    """Names nobody in its plans, and tells all that it detected."""

    detections: tuple[Agent, ...] = ()

    def plan(self, observation: Observation, deadline_ns: int | None = None) -> Plan:
        plan = super().plan(observation, deadline_ns)
        self.detections = plan.agents
        return replace(plan, agents=())


def test_detection_is_measured_on_all_that_a_policy_detects_and_tracking_on_what_it_names(renderer: Renderer) -> None:
    policy = Unsure(SCENE, renderer, samples=2)
    result = open_loop_result([record_scene(SCENE, {"unsure": policy}, renderer, samples=2)], "unsure")
    assert result.detection.classes["car"].average_precision == pytest.approx(1.0, abs=1e-6)
    assert result.identity.recall == 0.0


def test_a_sample_without_a_plan_saw_nothing(renderer: Renderer) -> None:
    policy = Masked(SCENE, renderer, samples=1, change=lambda plan: None)
    result = open_loop_result([record_scene(SCENE, {"masked": policy}, renderer, samples=1)], "masked")
    assert result.map_masks is not None
    assert {*result.map.overlap.values(), *result.map_masks.overlap.values()} == {0.0}
    assert result.detection.mean_average_precision == 0.0


def test_a_shift_of_two_metres_is_measured_in_every_convention(record: SceneRecord) -> None:
    scores = open_loop_result([record], "oracle").policies["aside"]
    assert scores.mean_displacement == pytest.approx(2.0)
    for convention in (scores.displacement.uniad, scores.displacement.stp3):
        assert [convention.one_second, convention.two_seconds, convention.three_seconds] == pytest.approx([2.0] * 3)


def test_a_plan_that_does_not_come_counts_as_one_that_stands_still(record: SceneRecord) -> None:
    scores = open_loop_result([record], "oracle").policies["silent"]
    assert scores.failures == SAMPLES
    ways = [np.hypot(*sample.expert[:, :2].T).mean() for sample in record.samples]
    assert scores.mean_displacement == pytest.approx(np.mean(ways))


def test_results_are_written_as_json_and_tables(record: SceneRecord) -> None:
    result = open_loop_result([record], "oracle")
    written = json.loads(result.to_json())
    assert written["policies"]["aside"]["displacement"]["uniad"]["average"] == pytest.approx(2.0)
    assert written["detection"]["classes"]["car"]["true_boxes"] > 0
    table = result.markdown()
    for part in ("| aside | 2.00 |", "| oncoming |", "| car |", "| boundary | 1.00 |", "0 switches"):
        assert part in table


def test_every_policy_forgets_the_scene_before(renderer: Renderer) -> None:
    policy = Oracle(SCENE, renderer, samples=1)
    for times in (1, 2):
        record_scene(SCENE, {"oracle": policy}, renderer, samples=1)
        assert policy.resets == times


def test_obstacles_stand_where_the_others_will_be_while_the_expert_drives(renderer: Renderer) -> None:
    scene = Scene("junction_left", 19)
    for world, sample in drive_scene(scene, renderer, samples=3):
        boxes = obstacle_boxes(world, roll_out(world))
        twin = world.copy()
        for step in range(6):
            for _ in range(5):
                twin.step(0.1, expert_command(twin))
            there = overlaps(ego_box(twin.ego), twin.traffic.boxes())
            now = np.zeros(len(boxes[step]), dtype=np.int64)
            assert touches(sample.future[step : step + 1], boxes[step], now, EGO_BODY)[0] == there.any()
            gaps = [np.hypot(*(boxes[step][:, :2] - sample.future[step, :2]).T).min()]
            own = np.array([twin.ego.x, twin.ego.y])
            actors = twin.traffic.actors()
            gaps.append(min(np.hypot(*(np.array([actor.x, actor.y]) - own)) for actor in actors))
            assert gaps[0] == pytest.approx(gaps[1], abs=1e-6)


def test_scenes_come_from_test_seeds_of_all_families() -> None:
    scenes = evaluation_scenes(112)
    assert {scene.family for scene in scenes} == set(FAMILIES)
    assert {split_of(scene.seed) for scene in scenes} == {Split.TEST}
    assert len({(scene.family, scene.seed) for scene in scenes}) == 112
    with pytest.raises(EvaluationError, match="0 scenes are too few"):
        evaluation_scenes(0)


def test_the_figures_of_two_processes_are_those_of_one_after_the_other() -> None:
    seen: list[tuple[int, int]] = []
    result = evaluate_open_loop(
        "constant_velocity", scenes=3, samples=2, processes=2, progress=lambda *now: seen.append(now)
    )
    policies = {"constant_velocity": ConstantVelocityPolicy()}
    renderer = renderer_for(policies["constant_velocity"])
    records = [record_scene(scene, policies, renderer, samples=2) for scene in evaluation_scenes(3)]
    assert result.to_json() == open_loop_result(records, "constant_velocity").to_json()
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_policy_that_cannot_be_loaded_is_refused_before_any_process_starts() -> None:
    with pytest.raises(CheckpointError, match="neither a checkpoint folder nor a policy name"):
        evaluate_open_loop("nowhere", scenes=1)
    with pytest.raises(EvaluationError, match="0 processes cannot work"):
        spread(len, ["a"], processes=0)


def test_headings_of_plans_come_from_their_points(record: SceneRecord) -> None:
    for sample in record.samples:
        plan = sample.plans["oracle"]
        assert plan is not None
        expected = Trajectory.from_waypoints(np.arange(1, 7) * 0.5, sample.expert[:, :2]).yaw
        np.testing.assert_allclose(plan[:, 2], expected)
