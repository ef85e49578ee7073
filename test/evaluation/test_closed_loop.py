"""A policy drives the world: plans twice a second, tracked in between."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.ego import DrivingCommand
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.plan import Plan, PlanError, PlanFailure, ThinkingMode
from opendrivevla_ros.core.policy import PolicyInfo
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.evaluation.closed_loop import (
    AgainstExpert,
    Sight,
    drive_policy,
    drive_with,
    seen_through,
    shuffled_order,
)
from opendrivevla_ros.world.expert import expert_command, roll_out
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.outcome import CommandResult
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import World

SEED = seed_of(Split.TEST, 0)
RIG = nuscenes_rig(16, 9)


class PlansFromTheWorld:
    """A policy for tests: what the expert will do, from the world that `observe` has just been shown.

    fails: which calls of `plan` end in a PlanError.
    """

    info = PolicyInfo(model_id="expert's plans", weights_hash="", trained=True, image_size=(1, 1))

    def __init__(self, fails: range = range(0)) -> None:
        self._fails = fails
        self.calls, self.resets = 0, 0
        self.stamps: list[int] = []
        self._world: World | None = None

    def observe(self, world: World) -> Observation:
        self._world = world
        image = np.full((9, 16, 3), 7, dtype=np.uint8)
        frames = tuple(CameraFrame(camera.name, world.time_ns, image) for camera in RIG.cameras)
        return Observation(world.time_ns, frames, RIG, world.ego_state(), DrivingCommand(world.command))

    def reset(self) -> None:
        self.resets += 1

    def set_economy(self, saves: bool) -> None:
        pass

    def set_thinking_mode(self, mode: ThinkingMode) -> None: ...

    def plan(self, observation: Observation, deadline_ns: int | None = None) -> Plan:
        self.calls += 1
        self.stamps.append(observation.stamp_ns)
        if self.calls - 1 in self._fails:
            raise PlanError(PlanFailure.BAD_TEXT, "no plan in this text")
        assert self._world is not None
        return Plan(observation.stamp_ns, roll_out(self._world).trajectory, 1.0)

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        yield ""


class Dashes(PlansFromTheWorld):
    """Plans 20 m/s straight on, whatever comes."""

    def plan(self, observation: Observation, deadline_ns: int | None = None) -> Plan:
        times = np.arange(1, 7) * 0.5
        xy = np.column_stack([20.0 * times, np.zeros(6)])
        return Plan(observation.stamp_ns, Trajectory.from_waypoints(times, xy, observation.ego.speed), 1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_expert_s_plans_pass_in_every_family(family: str) -> None:
    policy = PlansFromTheWorld()
    drive = drive_policy("plans", policy, make_scenario(family, SEED), policy.observe)
    assert drive.outcome.passed, str(drive.outcome)
    assert drive.outcome.command in (None, CommandResult.CARRIED_OUT)
    assert policy.resets == 1
    assert drive.plans == policy.calls == len(drive.plan_seconds)
    assert policy.stamps == list(range(0, len(policy.stamps) * 500_000_000, 500_000_000))
    assert drive.failures == ()


def test_a_failed_plan_leaves_the_last_one_in_force() -> None:
    policy = PlansFromTheWorld(fails=range(4, 6))
    drive = drive_policy("plans", policy, make_scenario("free_road", SEED), policy.observe)
    assert drive.failures == (("bad_text", 2),)
    assert drive.plans == policy.calls - 2
    assert drive.outcome.passed
    assert drive.outcome.hardest_braking < 2.0


def test_without_any_plan_the_ego_brakes_and_stands() -> None:
    policy = PlansFromTheWorld(fails=range(1000))
    drive = drive_policy("plans", policy, make_scenario("free_road", SEED), policy.observe)
    assert drive.plans == 0
    assert drive.failures == (("bad_text", policy.calls),)
    assert not drive.outcome.in_time
    assert drive.outcome.collision is None
    assert drive.trace.plan is None
    assert np.ptp(drive.trace.ego[-20:, 0]) == 0.0


def test_a_plan_that_goes_on_failing_is_braked_to_a_stop_past_its_end() -> None:
    policy = PlansFromTheWorld(fails=range(2, 1000))
    drive = drive_policy("plans", policy, make_scenario("free_road", SEED), policy.observe)
    assert drive.plans == 2
    assert np.ptp(drive.trace.ego[-20:, 0]) < 1e-6


def test_who_never_looks_collides_at_its_own_fault_and_is_measured_up_to_there() -> None:
    policy = Dashes()
    scenario = make_scenario("stopped_lead", SEED)
    drive = drive_policy("dash", policy, scenario, policy.observe)
    assert drive.outcome.collision is not None
    assert drive.outcome.at_fault
    assert drive.trace.plan is not None
    assert len(drive.trace.ego) == round(drive.outcome.time_s / 0.1) + 1
    steps = np.hypot(*np.diff(drive.trace.ego[:, :2], axis=0).T)
    assert drive.outcome.distance == pytest.approx(steps.sum())


def test_a_drive_is_compared_with_the_expert_s_when_that_arrives() -> None:
    scenario = make_scenario("braking_lead", SEED)
    expert = drive_with("expert", scenario, expert_command)
    itself = AgainstExpert.of(expert, expert)
    assert (itself.share, itself.metres_behind, itself.seconds_behind) == (1.0, 0.0, 0.0)
    standing = PlansFromTheWorld(fails=range(1000))
    slow = AgainstExpert.of(drive_policy("stands", standing, scenario, standing.observe), expert)
    assert slow.share < 0.4
    assert slow.metres_behind > 60.0
    assert slow.seconds_behind is None


def test_black_pictures_are_black_and_otherwise_nothing_is_told() -> None:
    world = World(make_scenario("free_road", SEED))
    observation = PlansFromTheWorld().observe(world)
    dark = seen_through(Sight.BLACK, observation, shuffled_order("free_road", SEED, 6))
    assert all((frame.image == 0).all() and frame.image.shape == (9, 16, 3) for frame in dark.frames)
    assert not any(frame.blank or frame.held for frame in dark.frames)
    assert dark.degraded == ()
    assert all((frame.image == 7).all() for frame in observation.frames)
    assert seen_through(Sight.SEEING, observation, shuffled_order("free_road", SEED, 6)) is observation


def test_shuffled_cameras_show_one_another_s_pictures_under_their_own_names() -> None:
    observation = PlansFromTheWorld().observe(World(make_scenario("free_road", SEED)))
    frames = tuple(
        CameraFrame(frame.camera, frame.stamp_ns, np.full((9, 16, 3), index, dtype=np.uint8))
        for index, frame in enumerate(observation.frames)
    )
    order = shuffled_order("free_road", SEED, 6)
    shuffled = seen_through(Sight.SHUFFLED, Observation(0, frames, RIG, observation.ego, observation.command), order)
    assert [frame.camera for frame in shuffled.frames] == [camera.name for camera in RIG.cameras]
    assert [int(frame.image[0, 0, 0]) for frame in shuffled.frames] == order.tolist()
    assert shuffled.rig is RIG


@given(st.sampled_from(FAMILIES), st.integers(0, 10_000))
def test_no_camera_keeps_its_own_picture_when_they_are_shuffled(family: str, seed: int) -> None:
    order = shuffled_order(family, seed, 6)
    assert sorted(order.tolist()) == list(range(6))
    assert all(order != np.arange(6))
    assert order.tolist() == shuffled_order(family, seed, 6).tolist()
