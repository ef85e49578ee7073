"""A policy on a data set of the nuScenes format: perfect plans are perfect, and what does not count is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation.nuscenes_sets import SPLIT, VERSION, Knowing, export, read
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.tracking.evaluate import TrackingEval

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Agent, Plan
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes
from opendrivevla_ros.evaluation.nuscenes_evaluation import find_version, stream_scene
from opendrivevla_ros.evaluation.nuscenes_official import DETECTIONS, TRACKS, official_figures
from opendrivevla_ros.evaluation.nuscenes_open_loop import TESTS, open_loop_figures
from opendrivevla_ros.evaluation.nuscenes_records import (
    RECORD,
    SampleRecord,
    SceneRecord,
    gather,
    keep,
    kept_records,
)
from opendrivevla_ros.evaluation.world_scenes import EvaluationError
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy

SETTINGS = {"version": "1", "weights": {"knowing": "abc"}, "data": "d"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("nuscenes") / "set")


@pytest.fixture(scope="module")
def scenes(root: Path) -> NuScenesScenes:
    return read(root)


def moved_left(plan: Plan) -> Plan:
    return replace(plan, trajectory=replace(plan.trajectory, xy=plan.trajectory.xy + np.array([0.0, 2.0])))


def not_finite(plan: Plan) -> Plan:
    xy = plan.trajectory.xy.copy()
    xy[3, 0] = np.nan
    return replace(plan, trajectory=replace(plan.trajectory, xy=xy))


def at_other_times(plan: Plan) -> Plan:
    return replace(plan, trajectory=replace(plan.trajectory, times=plan.trajectory.times * 2))


@pytest.fixture(scope="module")
def records(scenes: NuScenesScenes) -> list[SceneRecord]:
    changes: dict[str, Callable[[Plan], Plan | None]] = {
        "knowing": lambda plan: plan,
        "aside": moved_left,
        "silent": lambda plan: None,
        "not finite": not_finite,
        "other times": at_other_times,
    }
    policies: dict[str, Any] = {name: Knowing(scenes, change) for name, change in changes.items()}
    policies["constant_velocity"] = ConstantVelocityPolicy()
    return [stream_scene(scene, policies, SETTINGS) for scene in scenes]


def test_the_humans_own_plan_is_perfect(records: list[SceneRecord]) -> None:
    figures = open_loop_figures(records)
    assert figures.samples == 21
    knowing = figures.policies["knowing"]
    assert (knowing.samples, knowing.failures, knowing.collides) == (21, 0, 0.0)
    for test in ("displacement", *TESTS):
        measure = getattr(knowing, test)
        assert measure.uniad.average == pytest.approx(0.0, abs=1e-9)
        assert measure.stp3.average == pytest.approx(0.0, abs=1e-9)
    assert figures.policies["constant_velocity"].displacement.uniad.average > 0.05


def test_times_beyond_a_scenes_end_count_as_nothing_and_are_told(records: list[SceneRecord]) -> None:
    figures = open_loop_figures(records)
    assert figures.steps_beyond == 3 * (1 + 2 + 3 + 4 + 5 + 6)  # seven samples of each scene
    aside = figures.policies["aside"].displacement
    shares = [1 - step / 7 for step in range(1, 7)]
    uniad = [aside.uniad.one_second, aside.uniad.two_seconds, aside.uniad.three_seconds]
    assert uniad == pytest.approx([2 * shares[1], 2 * shares[3], 2 * shares[5]])
    stp3 = [aside.stp3.one_second, aside.stp3.two_seconds, aside.stp3.three_seconds]
    assert stp3 == pytest.approx([2 * np.mean(shares[:count]) for count in (2, 4, 6)])


def test_plans_that_did_not_come_stand_still_and_are_counted_by_reason(records: list[SceneRecord]) -> None:
    policies = open_loop_figures(records).policies
    for name, reason in (("silent", "internal"), ("not finite", "not_finite"), ("other times", "other_times")):
        assert (policies[name].failures, policies[name].reasons) == (21, {reason: 21})
        assert policies[name].displacement == policies["silent"].displacement
    ways = [np.hypot(*sample.reference[:, :2].T) * sample.mask for record in records for sample in record.samples]
    assert policies["silent"].mean_displacement == pytest.approx(np.mean(ways), rel=0.01)  # the lidar's way, not ours


def test_every_policy_forgets_the_scene_before(scenes: NuScenesScenes) -> None:
    policy = Knowing(scenes)
    for times, scene in enumerate(scenes, start=1):
        stream_scene(scene, {"knowing": policy}, SETTINGS)
        assert policy.resets == times


def test_the_devkits_own_commands_give_the_same_figures(root: Path, scenes: NuScenesScenes, tmp_path: Path) -> None:
    random = np.random.default_rng(3)

    def blurred(plan: Plan) -> Plan:
        kept = [agent for agent in plan.agents if random.uniform() < 0.8]
        off = [np.array([*random.normal(0, 0.6, 2), 0.0]) for _ in kept]
        agents = tuple(
            replace(
                agent,
                position=agent.position + shift,
                velocity=agent.velocity + shift[:2],
                score=float(random.uniform(0.3, 1.0)),
            )
            for agent, shift in zip(kept, off, strict=True)
        )
        return replace(plan, agents=agents)

    policy = Knowing(scenes, blurred)
    records = [stream_scene(scene, {"knowing": policy}, SETTINGS) for scene in scenes]
    found = official_figures(root, VERSION, SPLIT, records, tmp_path)
    assert found.detection is not None
    assert found.tracking is not None
    nusc, where = NuScenes(VERSION, str(root), verbose=False), str(tmp_path / "devkit")
    detection = DetectionEval(
        nusc, config_factory("detection_cvpr_2019"), str(tmp_path / DETECTIONS), SPLIT, where, verbose=False
    ).evaluate()[0]
    assert 0.05 < found.detection["nd_score"] < 0.95
    np.testing.assert_equal(found.detection, {key: detection.serialize()[key] for key in found.detection})
    tracking = TrackingEval(
        config_factory("tracking_nips_2019"), str(tmp_path / TRACKS), SPLIT, where, VERSION, str(root), verbose=False
    ).evaluate()[0]
    assert 0.05 < found.tracking["amota"] < 0.95
    np.testing.assert_equal(found.tracking, {key: tracking.serialize()[key] for key in found.tracking})


class Unsure(Knowing):
    """Names nobody in its plans, and tells all that it detected, one of them without an extent."""

    detections: tuple[Agent, ...] = ()

    def plan(self, observation: Observation, deadline_ns: int | None = None) -> Plan:
        plan = super().plan(observation, deadline_ns)
        broken = Agent(-1, "car", 0.1, np.zeros(3), np.zeros(3), 0.0, np.zeros(2))
        self.detections = (*plan.agents, broken)
        return replace(plan, agents=())


def test_detection_is_measured_on_all_that_is_detected(root: Path, scenes: NuScenesScenes, tmp_path: Path) -> None:
    policy = Unsure(scenes)
    records = [stream_scene(scene, {"knowing": policy}, SETTINGS) for scene in scenes]
    assert {sample.agents_left_out for record in records for sample in record.samples} == {1}
    for record in records:
        keep(record, tmp_path / "scenes")
    kept = kept_records(tmp_path / "scenes", {"version": "1", "weights": SETTINGS["weights"]}, {})
    found = official_figures(root, VERSION, SPLIT, kept, tmp_path)
    assert found.tracking is None
    assert found.detection is not None
    assert found.detection["mean_ap"] > 0.0


def test_who_sees_nothing_has_no_detection_figures(root: Path, scenes: NuScenesScenes, tmp_path: Path) -> None:
    records = [stream_scene(scene, {"blind": ConstantVelocityPolicy()}, SETTINGS) for scene in scenes]
    found = official_figures(root, VERSION, SPLIT, records, tmp_path)
    assert (found.detection, found.tracking) == (None, None)
    results = json.loads((tmp_path / DETECTIONS).read_text())["results"]
    assert len(results) == 21


def made_up(token: str = "a", plan: np.ndarray | None = None, **boxes: Any) -> SampleRecord:
    """A vehicle that drives 2 m a step, and a plan to the same places unless another is given."""
    reference = np.column_stack([2.0 * np.arange(1, 7), np.zeros((6, 2))])
    fields: dict[str, Any] = {
        "boxes": np.zeros((0, 5)),
        "instants": np.zeros(0, dtype=np.int64),
        "pedestrian": np.zeros(0, dtype=bool),
        "hidden": np.zeros(0, dtype=bool),
    }
    return SampleRecord(
        token=token,
        pose=np.eye(4),
        reference=reference,
        mask=np.ones(6, dtype=bool),
        plans={"knowing": reference if plan is None else plan},
        failures={},
        agents=(),
        detections=(),
        **{**fields, **boxes},
    )


def scene_of(*samples: SampleRecord, name: str = "scene-1") -> SceneRecord:
    return SceneRecord(name, SETTINGS, NUSCENES_LIDAR_TO_BASE, samples)


def hits(sample: SampleRecord) -> dict[str, float]:
    figures = open_loop_figures([scene_of(sample)])
    return {test: getattr(figures.policies["knowing"], test).uniad.three_seconds for test in TESTS}


def one_box(x: float, y: float, *, pedestrian: bool = False, hidden: bool = False) -> dict[str, Any]:
    """A box of 2 x 2 m at the last instant."""
    return {
        "boxes": np.array([[x, y, 0.0, 2.0, 2.0]]),
        "instants": np.array([5]),
        "pedestrian": np.array([pedestrian]),
        "hidden": np.array([hidden]),
    }


def aside(metres: float, yaw: float = 0.0) -> np.ndarray:
    plan = np.column_stack([2.0 * np.arange(1, 7), np.linspace(0.0, metres, 6), np.zeros(6)])
    plan[-1, 2] = yaw
    return plan


def test_vehicles_and_pedestrians_count_as_their_tests_say() -> None:
    assert hits(made_up(plan=aside(4.0), **one_box(13.4, 4.0))) == dict.fromkeys(TESTS, 1.0)
    only_pedestrians = {"occupancy": 0.0, "occupancy_all": 1.0, "collision": 0.0, "collision_all": 1.0}
    assert hits(made_up(plan=aside(4.0), **one_box(13.4, 4.0, pedestrian=True))) == only_pedestrians
    assert hits(made_up(plan=aside(0.0), **one_box(13.4, 4.0))) == dict.fromkeys(TESTS, 0.0)


def test_the_oriented_test_alone_sees_the_heading_and_who_is_hidden() -> None:
    better_only = {"occupancy": 0.0, "occupancy_all": 0.0, "collision": 1.0, "collision_all": 1.0}
    across = aside(0.0, yaw=np.pi / 2)
    assert hits(made_up(plan=across, **one_box(12.0, 3.5))) == better_only
    assert hits(made_up(plan=aside(4.0), **one_box(13.4, 4.0, hidden=True))) == better_only


def test_where_the_reference_itself_touches_the_plan_is_excused_and_it_is_told() -> None:
    sample = made_up(plan=aside(0.5), **one_box(13.4, 0.0))
    assert hits(sample) == dict.fromkeys(TESTS, 0.0)
    assert open_loop_figures([scene_of(sample)]).reference_touches == dict.fromkeys(TESTS, 1)


def test_missing_unknown_and_duplicated_samples_are_named_and_count_nowhere() -> None:
    first = scene_of(made_up("a"), made_up("b", aside(9.0)), made_up("x", aside(9.0)))
    again = scene_of(made_up("b", aside(7.0)), name="copy")
    tokens = {"scene-1": ["a", "b"], "scene-2": ["c"]}
    records, problems = gather([first, again], tokens, absent=("scene-3",), without={"scene-2": "is broken"})
    assert [sample.token for record in records for sample in record.samples] == ["a"]
    assert open_loop_figures(records).policies["knowing"].mean_displacement == 0.0
    assert (problems.missing, problems.unknown, problems.duplicated) == (("c",), ("x",), ("b",))
    assert (problems.scenes, problems.absent) == ({"scene-2": "is broken"}, ("scene-3",))
    assert problems
    whole, none = gather([scene_of(made_up("a"))], {"scene-1": ["a"]}, absent=(), without={})
    assert not none
    assert len(whole) == 1


def read_back(folder: Path, settings: dict[str, Any] = SETTINGS) -> list[SceneRecord]:
    return kept_records(folder, {key: settings[key] for key in ("version", "weights")}, {"scene-1": settings["data"]})


def test_a_record_comes_back_as_it_was_kept(records: list[SceneRecord], tmp_path: Path) -> None:
    names = dict.fromkeys(records[0].samples[0].plans, "")
    settings = {**SETTINGS, "weights": names}
    for record in records:
        keep(replace(record, settings=settings), tmp_path)
    data = dict.fromkeys((record.scene for record in records), "d")
    back = kept_records(tmp_path, {"version": "1", "weights": names}, data)
    assert [len(record.moments) for record in back] == [len(record.moments) for record in records]
    assert open_loop_figures(back) == open_loop_figures(records)
    for old, new in zip(records, back, strict=True):
        for before, after in zip(old.samples, new.samples, strict=True):
            apart = {"agents": (), "detections": ()}
            np.testing.assert_equal(vars(after) | apart, vars(before) | apart)
            for found, kept in ((after.agents, before.agents), (after.detections, before.detections)):
                assert len(found) == len(kept) > 0
                for one, other in zip(found, kept, strict=True):
                    np.testing.assert_equal(vars(one), vars(other))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"version": "2"}, "version '1' and not '2'; choose another --output, or remove"),
        ({"weights": {"knowing": "abd"}}, "weights {'knowing': 'abc'} and not {'knowing': 'abd'}; choose another"),
        ({"data": "e"}, "data 'd' and not 'e'; choose another --output"),
    ],
)
def test_a_record_of_another_evaluation_is_refused_by_name(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    keep(scene_of(made_up()), tmp_path)
    assert len(read_back(tmp_path)) == 1
    with pytest.raises(EvaluationError) as refused:
        read_back(tmp_path, {**SETTINGS, **changed})
    assert str(tmp_path / "scene-1" / RECORD) in str(refused.value)
    assert sentence in str(refused.value)


def test_a_plan_in_a_record_that_is_not_finite_counts_as_none(tmp_path: Path) -> None:
    keep(scene_of(made_up()), tmp_path)
    path = tmp_path / "scene-1" / RECORD
    content = json.loads(path.read_text())
    content["samples"][0]["plans"]["knowing"][2][0] = float("nan")
    path.write_text(json.dumps(content))
    figures = open_loop_figures(read_back(tmp_path)).policies["knowing"]
    assert (figures.failures, figures.reasons) == (1, {"not_finite": 1})
    assert figures.mean_displacement == pytest.approx(7.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("samples"),
        lambda content: content["samples"][0].pop("plans"),
        lambda content: content["samples"][0]["plans"].pop("knowing"),
        lambda content: content["samples"][0]["plans"].update(knowing=[[1.0, 2.0]]),
        lambda content: content["samples"][0]["plans"].update(knowing=None),
        lambda content: content["samples"][0].update(reference=[[float("inf")] * 3] * 6),
        lambda content: content["samples"][0].update(boxes=[[0.0] * 5], instants=[6], pedestrian=[0], hidden=[0]),
    ],
)
def test_a_record_that_is_not_whole_is_named(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    keep(scene_of(made_up()), tmp_path)
    path = tmp_path / "scene-1" / RECORD
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=r"record\.json is no whole record .*; remove .*scene-1 to evaluate"):
        read_back(tmp_path)


def test_the_folder_of_tables_is_found(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"has no folder of tables with a scene\.json; --root is"):
        find_version(tmp_path, "val")
    for version in ("v1.0-mini", "v1.0-trainval"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "scene.json").write_text("[]")
        assert find_version(tmp_path, "mini_val") == "v1.0-mini"
    assert find_version(tmp_path, "val") == "v1.0-trainval"
    with pytest.raises(EvaluationError, match=r"has the tables of v1\.0-mini, v1\.0-trainval; choose one with"):
        find_version(tmp_path, "own")
