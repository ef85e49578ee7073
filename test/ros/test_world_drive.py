"""A drive on plans, without a node: what is followed, what is refused, and what happens without."""

import numpy as np
import pytest
from opendrivevla_ros.msg import PlannedTrajectory

from opendrivevla_ros.core.plan import Plan
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.ros.conversions import header, trajectory_message
from opendrivevla_ros.ros.received import trajectory_of
from opendrivevla_ros.ros.world_drive import STEP_NS, TICK_NS, WORLD_FRAME, State, WorldDrive
from opendrivevla_ros.world.expert import roll_out
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.simulation import World

EPOCH_NS = 1_000_000_000_000


def expert_plan(world: World) -> PlannedTrajectory:
    """The expert's next 3 s as vla_node would publish them."""
    return plan_message(world, roll_out(world).trajectory)


def plan_message(world: World, trajectory: Trajectory) -> PlannedTrajectory:
    message = trajectory_message(Plan(world.time_ns, trajectory, confidence=1.0), world.ego_state())
    message.header = header(EPOCH_NS + world.time_ns, WORLD_FRAME)
    return message


def run(drive: WorldDrive, seconds: float) -> None:
    until = drive.time_ns + round(seconds * 1e9)
    while drive.time_ns < until and not drive.state.is_end:
        drive.tick()


@pytest.mark.parametrize(("family", "seed"), [("junction_left", 49), ("stopped_lead", 9), ("junction_right", 9)])
def test_the_experts_plans_that_come_300_ms_late_drive_the_scenario_to_its_end(family: str, seed: int) -> None:
    drive = WorldDrive(make_scenario(family, seed), lead_in_s=1.0)
    waiting: list[tuple[int, PlannedTrajectory]] = []
    while not drive.state.is_end:
        if drive.time_ns % (5 * STEP_NS) == 0:
            waiting.append((drive.time_ns + 300_000_000, expert_plan(drive.world)))
        while waiting and waiting[0][0] <= drive.time_ns:
            assert drive.follow(waiting.pop(0)[1], EPOCH_NS), drive.refusal
        drive.tick()
    assert drive.state is State.ARRIVED
    assert drive.completion == 1.0
    assert not drive.off_road
    assert drive.refusals == 0


def test_the_vehicle_goes_on_smoothly_between_steps_and_is_where_the_world_says_at_each() -> None:
    drive = WorldDrive(make_scenario("bend", 9), lead_in_s=100.0)
    before = drive.ego
    for tick in range(1, 101):
        drive.tick()
        assert drive.time_ns == tick * TICK_NS
        if drive.at_step:
            assert drive.ego == drive.world.ego
        moved = np.hypot(drive.ego.x - before.x, drive.ego.y - before.y)
        assert moved == pytest.approx(drive.ego.speed * TICK_NS * 1e-9, abs=0.02)
        before = drive.ego


def test_without_a_plan_the_vehicle_brakes_to_a_stop_and_says_so() -> None:
    drive = WorldDrive(make_scenario("free_road", 29), lead_in_s=0.5)
    run(drive, 0.5)
    assert drive.state is State.DRIVING
    run(drive, 8.0)
    assert drive.ego.speed == 0.0
    assert drive.complaint == "no plan has come: the vehicle brakes"


def test_a_stale_plan_is_braked_along_although_it_goes_on() -> None:
    drive = WorldDrive(make_scenario("free_road", 29), plan_timeout_s=1.0)
    times = np.arange(1, 21) * 0.5
    ahead = np.column_stack([drive.ego.speed * times, np.zeros(20)])
    assert drive.follow(plan_message(drive.world, Trajectory.from_waypoints(times, ahead, drive.ego.speed)), EPOCH_NS)
    run(drive, 1.0)
    assert drive.complaint == ""
    assert drive.ego.speed > 3.0
    run(drive, 7.0)
    assert drive.ego.speed == 0.0
    assert "s old: the vehicle brakes" in drive.complaint


def test_the_drive_is_over_when_the_time_is() -> None:
    drive = WorldDrive(make_scenario("free_road", 29), lead_in_s=100.0, time_limit_s=1.0)
    run(drive, 10.0)
    assert drive.state is State.OUT_OF_TIME
    assert drive.time_ns == 1_000_000_000


def test_who_drives_into_somebody_is_told_whom_he_hit() -> None:
    drive = WorldDrive(make_scenario("stopped_lead", 9))
    times = np.arange(1, 21) * 0.5
    ahead = np.column_stack([12.0 * times, np.zeros(20)])
    while not drive.state.is_end:
        if drive.at_step:
            drive.follow(plan_message(drive.world, Trajectory.from_waypoints(times, ahead, 12.0)), EPOCH_NS)
        drive.tick()
    assert drive.state is State.COLLIDED
    assert drive.collision in ("car", "truck", "bus")


def test_plans_that_cannot_be_followed_are_refused_in_one_sentence_and_the_old_one_stays() -> None:
    drive = WorldDrive(make_scenario("free_road", 29))
    run(drive, 1.0)
    good = expert_plan(drive.world)
    assert drive.follow(good, EPOCH_NS)
    cases = {
        "in frame 'map'": lambda plan: setattr(plan.header, "frame_id", "map"),
        "stamped 61.00 s at 1.00 s": lambda plan: setattr(plan.header.stamp, "sec", plan.header.stamp.sec + 60),
        "stamped -99.00 s": lambda plan: setattr(plan.header.stamp, "sec", plan.header.stamp.sec - 100),
        "older than the one": lambda plan: setattr(plan.header.stamp, "sec", plan.header.stamp.sec - 1),
        "N > 0": lambda plan: setattr(plan, "points", []),
        "finite": lambda plan: setattr(plan.points[2].pose.position, "x", float("nan")),
        "rise": lambda plan: setattr(plan.points[0].time_from_start, "sec", 9),
    }
    for words, spoil in cases.items():
        plan = expert_plan(drive.world)
        spoil(plan)
        assert not drive.follow(plan, EPOCH_NS)
        assert words in drive.refusal
    assert (drive.plans, drive.refusals) == (1, len(cases))
    assert drive.complaint == ""


def test_a_plan_comes_back_from_its_message_as_it_was() -> None:
    world = World(make_scenario("bend", 9))
    planned = roll_out(world).trajectory
    state = world.ego_state()
    message = plan_message(world, planned)
    received = trajectory_of(message, state.base_to_world, state.speed)
    for name in ("times", "xy", "yaw", "velocity", "acceleration", "curvature", "covariance"):
        np.testing.assert_allclose(getattr(received, name), getattr(planned, name), atol=1e-6)
