"""The tracking controller follows plans as a vehicle would."""

import numpy as np
import pytest

from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.world.expert import roll_out
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import STEP_S, drive
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Ego
from opendrivevla_ros.world.tracking import TrajectoryTracker
from opendrivevla_ros.world.vehicle import EgoCommand, step_ego

TIMES = np.arange(1, 7) * 0.5


def follow(xy: np.ndarray, ego: Ego, seconds: float) -> list[Ego]:
    tracker = TrajectoryTracker(Trajectory.from_waypoints(TIMES, xy, ego.speed), ego.base_to_world, 0)
    egos = [ego]
    for step in range(round(seconds / STEP_S)):
        egos.append(step_ego(egos[-1], tracker.command(egos[-1], round(step * STEP_S * 1e9)), STEP_S))
    return egos


@pytest.mark.parametrize("radius", [8.0, -8.0, 30.0, -100.0])
def test_a_planned_arc_is_driven_close_by_and_on_time(radius: float) -> None:
    speed = 4.0 if abs(radius) < 10 else 8.0
    turned = speed * TIMES / radius
    xy = np.column_stack([radius * np.sin(turned), radius * (1 - np.cos(turned))])
    start = Ego(5.0, -3.0, 1.1, speed)
    egos = follow(xy, start, 2.5)
    pose = planar_transform(5.0, -3.0, 1.1)
    for point, time in zip(xy, TIMES, strict=True):
        if time <= 2.5:
            ego = egos[round(time / STEP_S)]
            wanted = (pose @ [*point, 0.0, 1.0])[:2]
            assert np.hypot(ego.x - wanted[0], ego.y - wanted[1]) < 0.45


def test_a_plan_of_ten_points_is_followed_to_its_own_end() -> None:
    times = np.arange(1, 11) * 0.5
    turned = 6.0 * times / 40.0
    xy = np.column_stack([40.0 * np.sin(turned), 40.0 * (1 - np.cos(turned))])
    ego = Ego(0.0, 0.0, 0.0, 6.0)
    tracker = TrajectoryTracker(Trajectory.from_waypoints(times, xy, ego.speed), ego.base_to_world, 0)
    for step in range(round(4.5 / STEP_S)):
        ego = step_ego(ego, tracker.command(ego, round(step * STEP_S * 1e9)), STEP_S)
    assert np.hypot(*(np.array([ego.x, ego.y]) - xy[8])) < 0.45
    assert ego.speed > 4.0


def test_a_plan_that_brakes_to_a_stop_is_stopped() -> None:
    travelled = np.where(TIMES < 2.0, 8.0 * TIMES - 2.0 * TIMES**2, 8.0)
    egos = follow(np.column_stack([travelled, np.zeros(6)]), Ego(0.0, 0.0, 0.0, 8.0), 4.0)
    assert egos[-1].speed < 0.3
    assert egos[-1].x == pytest.approx(8.0, abs=1.0)


def test_a_plan_that_turns_back_is_taken_to_stop_there() -> None:
    xy = np.column_stack([[3.5, 6.0, 7.5, 8.0, 7.5, 6.0], np.zeros(6)])
    egos = follow(xy, Ego(0.0, 0.0, 0.0, 8.0), 5.0)
    assert egos[-1].x == pytest.approx(8.0, abs=1.0)
    assert abs(egos[-1].y) < 0.01
    assert egos[-1].speed < 0.3


def test_a_plan_to_stand_brakes_and_then_stands() -> None:
    egos = follow(np.zeros((6, 2)), Ego(0.0, 0.0, 0.0, 3.0), 3.0)
    assert egos[-1].speed == 0.0


@pytest.mark.parametrize("family", ["junction_left", "junction_right", "parked_cars", "stopped_queue"])
def test_the_expert_s_plans_made_twice_a_second_pass_when_tracked(family: str) -> None:
    tracker: TrajectoryTracker | None = None

    def driver(world: World) -> EgoCommand:
        nonlocal tracker
        if tracker is None or world.time_ns % 500_000_000 == 0:
            tracker = TrajectoryTracker(roll_out(world).trajectory, world.ego.base_to_world, world.time_ns)
        return tracker.command(world.ego, world.time_ns)

    outcome = drive(World(make_scenario(family, 9)), driver)
    assert outcome.passed, str(outcome)
