"""Scenes for the tests of evaluation: pictures of a few pixels, and policies that know what they can't know."""

from collections.abc import Callable, Iterator

import numpy as np

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Agent, Plan, PlanError, PlanFailure, ThinkingMode
from opendrivevla_ros.core.policy import PolicyInfo
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S, Trajectory
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample
from opendrivevla_ros.evaluation.world_scenes import Scene, drive_scene
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig

SMALL = (32, 18)


def make_renderer() -> Renderer:
    return Renderer(nuscenes_rig(*SMALL))


class Oracle:
    """Plans what the expert will do and sees what is there; `change` spoils a plan before it is told."""

    info = PolicyInfo(model_id="oracle", weights_hash="", trained=True, image_size=SMALL)

    def __init__(
        self,
        scene: Scene,
        renderer: Renderer,
        *,
        samples: int,
        change: Callable[[Plan], Plan | None] = lambda plan: plan,
    ) -> None:
        drive = drive_scene(scene, renderer, samples=samples)
        self._truth = {sample.observation.stamp_ns: sample for _, sample in drive}
        self._change = change
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def set_economy(self, saves: bool) -> None:
        pass

    def set_thinking_mode(self, mode: ThinkingMode) -> None:
        raise AssertionError("evaluation sets no thinking mode")

    def plan(self, observation: Observation, deadline_ns: int | None = None) -> Plan:
        sample = self._truth[observation.stamp_ns]
        plan = self._change(true_plan(sample))
        if plan is None:
            raise PlanError(PlanFailure.INTERNAL, "no plan for a test")
        return plan

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        yield "nothing"


def true_plan(sample: DrivingSample) -> Plan:
    ego = sample.observation.ego
    trajectory = Trajectory.from_waypoints(FUTURE_TIMES_S, sample.future[:, :2], ego.speed)
    return Plan(
        stamp_ns=sample.observation.stamp_ns,
        trajectory=trajectory,
        confidence=1.0,
        agents=tuple(true_agent(label) for label in sample.agents or ()),
        map_elements=sample.map_elements or (),
    )


def true_agent(label: AgentLabel, *, score: float = 0.9) -> Agent:
    return Agent(label.track_id, label.label, score, label.position, label.size, label.yaw, label.velocity)


def make_label(track_id: int = 0, x: float = 10.0, y: float = 0.0, **changes: object) -> AgentLabel:
    fields: dict[str, object] = {
        "track_id": track_id,
        "label": "car",
        "position": np.array([x, y, 0.8]),
        "size": np.array([4.5, 1.9, 1.6]),
        "yaw": 0.2,
        "velocity": np.array([3.0, 0.5]),
        "velocity_known": True,
        "future": np.zeros((6, 2)),
        "future_mask": np.zeros(6, dtype=bool),
        "points": 20,
        "visibility": 4,
        "attribute": "vehicle.moving",
    }
    return AgentLabel(**{**fields, **changes})
