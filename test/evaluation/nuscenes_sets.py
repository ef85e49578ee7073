"""Small data sets of the nuScenes format for the tests: the driving world, pictures of a few pixels."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, PlanError, PlanFailure, ThinkingMode
from opendrivevla_ros.core.policy import PolicyInfo
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S, Trajectory
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.nuscenes_export import export_nuscenes
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes
from opendrivevla_ros.datasets.world_scenes import StaggeredCameras, world_scene
from opendrivevla_ros.world.rig import nuscenes_rig

SIZE = (96, 54)
VERSION, SPLIT = "v1.0-world", "world_test"
SCENES = (("cut_in", 9), ("junction_left", 19), ("bend", 9))


def export(root: Path, scenes: tuple[tuple[str, int], ...] = SCENES, *, seconds: float = 3.0) -> Path:
    """A data set of test seeds."""
    cameras = StaggeredCameras(nuscenes_rig(*SIZE))
    try:
        export_nuscenes(root, [world_scene(family, seed, cameras, duration_s=seconds) for family, seed in scenes])
    finally:
        cameras.close()
    return root


def read(root: Path) -> NuScenesScenes:
    return NuScenesScenes(root, VERSION, image_size=SIZE, split=SPLIT, map_reach=None)


def change_table(root: Path, table: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Rewrites a table of a data set."""
    path = root / VERSION / f"{table}.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def keep_first_sample(root: Path, scene: str) -> None:
    """Leaves one frame of a scene."""
    scenes = json.loads((root / VERSION / "scene.json").read_text())
    row = next(row for row in scenes if row["name"] == scene)
    first, token = row["first_sample_token"], row["token"]
    change_table(root, "scene", lambda rows: [one if one["token"] != token else _shortened(one) for one in rows])
    change_table(
        root,
        "sample",
        lambda rows: [
            {**one, "next": ""} if one["token"] == first else one
            for one in rows
            if one["scene_token"] != token or one["token"] == first
        ],
    )
    left = {row["token"] for row in json.loads((root / VERSION / "sample.json").read_text())}
    for table in ("sample_data", "sample_annotation"):
        change_table(root, table, lambda rows: [one for one in rows if one["sample_token"] in left])


def _shortened(scene: dict[str, Any]) -> dict[str, Any]:
    return {**scene, "nbr_samples": 1, "last_sample_token": scene["first_sample_token"]}


class Knowing:
    """Plans what the human did and tells who is there; `change` spoils a plan before it is told."""

    info = PolicyInfo(model_id="knowing", weights_hash="", trained=True, image_size=SIZE)

    def __init__(self, scenes: NuScenesScenes, change: Callable[[Plan], Plan | None] = lambda plan: plan) -> None:
        self._truth: dict[tuple[float, ...], Plan] = {}
        self._change = change
        self.resets = 0
        for scene in scenes:
            for sample in scene:
                following = [one.pose for one in scene.following(sample.index)]
                poses = np.zeros((6, 3))
                poses[: len(following)] = np.array(following).reshape(-1, 3)
                self._truth[_key(sample.observation)] = known_plan(sample, poses)

    def reset(self) -> None:
        self.resets += 1

    def set_economy(self, saves: bool) -> None:
        pass

    def set_thinking_mode(self, mode: ThinkingMode) -> None:
        pass

    def plan(self, observation: Observation, deadline_ns: int | None = None) -> Plan:
        plan = self._change(self._truth[_key(observation)])
        if plan is None:
            raise PlanError(PlanFailure.INTERNAL, "no plan for a test")
        return plan

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        yield "nothing"


def _key(observation: Observation) -> tuple[float, ...]:
    return (observation.stamp_ns, *observation.ego.base_to_world[:2, 3].tolist())


def known_plan(sample: DrivingSample, poses: np.ndarray) -> Plan:
    from evaluation.scenes import true_agent

    trajectory = Trajectory.from_waypoints(FUTURE_TIMES_S, poses[:, :2], sample.observation.ego.speed)
    return Plan(
        stamp_ns=sample.observation.stamp_ns,
        trajectory=replace(trajectory, yaw=poses[:, 2]),
        confidence=1.0,
        agents=tuple(true_agent(label) for label in sample.agents or ()),
    )
