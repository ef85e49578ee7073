"""How a drive ends: collisions and whose fault, off the road, out of time, what became of the command, comfort."""

from dataclasses import replace

import numpy as np
import pytest

from opendrivevla_ros.world.conflict import at_fault, time_to_collision
from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import LOST_METRES, CommandResult, command_result, drive
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import EGO_CENTRE_AHEAD, Actor, Attribute, Category
from opendrivevla_ros.world.vehicle import EgoCommand


def test_a_blind_driver_collides_and_one_who_steers_away_leaves_the_road() -> None:
    blind = drive(
        World(make_scenario("stopped_lead", 0)), lambda world: EgoCommand(0.5, expert_command(world).steering)
    )
    assert blind.collision is not None
    assert blind.at_fault
    assert blind.least_time_to_collision == 0.0
    assert not blind.passed
    astray = drive(World(make_scenario("free_road", 0)), lambda world: EgoCommand(0.5, -0.2))
    assert astray.off_road
    assert astray.out_of_lane
    assert not astray.passed


def test_who_stands_still_is_out_of_time() -> None:
    outcome = drive(World(make_scenario("free_road", 2)), lambda world: EgoCommand(-3.0, 0.0))
    assert not outcome.in_time
    assert outcome.completion < 0.3
    assert outcome.collision is None
    assert outcome.hardest_braking == pytest.approx(3.0)
    assert outcome.hardest_acceleration == 0.0


def test_a_smooth_drive_measures_smoother_than_one_of_pedal_stamping() -> None:
    def stamping(world: World) -> EgoCommand:
        command = expert_command(world)
        push = 1.0 if world.time_ns // 300_000_000 % 2 else -1.0
        return EgoCommand(command.acceleration + push, command.steering)

    smooth = drive(World(make_scenario("free_road", 9)), expert_command)
    rough = drive(World(make_scenario("free_road", 9)), stamping)
    assert smooth.mean_jerk <= smooth.most_jerk
    assert rough.mean_jerk > 2 * smooth.mean_jerk
    assert rough.mean_acceleration > smooth.mean_acceleration
    assert smooth.distance == pytest.approx(rough.distance, abs=2.0)


@pytest.mark.parametrize("family", ["junction_left", "junction_right", "junction_straight"])
def test_the_expert_carries_the_command_out_and_who_stands_has_not_left_the_junction(family: str) -> None:
    assert drive(World(make_scenario(family, 9)), expert_command).command is CommandResult.CARRIED_OUT
    standing = drive(World(make_scenario(family, 9)), lambda world: EgoCommand(-3.0, 0.0))
    assert standing.command is CommandResult.NOT_LEFT


def test_who_drives_another_way_than_commanded_is_not_followed_far() -> None:
    def straight_on(world: World) -> EgoCommand:
        route = world.scenario.route
        assert route.junction is not None
        before = world.progress < route.junction.entry - 3.0
        return EgoCommand(max(0.0, 5.0 - world.ego.speed), expert_command(world).steering if before else 0.0)

    outcome = drive(World(make_scenario("junction_left", 9)), straight_on)
    assert outcome.collision is None
    assert outcome.command is CommandResult.ANOTHER_WAY
    assert outcome.most_lateral < LOST_METRES + 2.0
    assert not outcome.passed


def test_every_other_road_of_a_junction_is_another_way() -> None:
    world = World(make_scenario("junction_left", 9))
    road, route = world.scenario.road, world.scenario.route
    entry, wanted = road.lanes[route.lanes[0]].road, road.lanes[route.lanes[-1]].road
    for lane in road.lanes:
        x, y = lane.centreline[len(lane.centreline) // 2]
        world.ego = replace(world.ego, x=x - EGO_CENTRE_AHEAD, y=y, yaw=0.0)
        world.traffic.set_ego(world.ego)
        if lane.road not in (entry, wanted) and not lane.in_junction:
            assert command_result(world) is CommandResult.ANOTHER_WAY
        elif lane.id == route.lanes[-1] and abs(world.lateral) < LOST_METRES:
            assert command_result(world) is CommandResult.CARRIED_OUT


def test_a_road_without_a_junction_has_no_command_to_carry_out() -> None:
    assert command_result(World(make_scenario("bend", 9))) is None


def beside(world: World, ahead: float, left: float) -> Actor:
    """A car whose middle is so far ahead and left of the ego's."""
    yaw, (x, y) = world.ego.yaw, world.ego.centre
    return Actor(
        0,
        Category.CAR,
        Attribute.MOVING,
        x + ahead * np.cos(yaw) - left * np.sin(yaw),
        y + ahead * np.sin(yaw) + left * np.cos(yaw),
        yaw,
        (4.6, 1.9, 1.6),
    )


def moved_aside(world: World, left: float) -> World:
    x, y, yaw = world.scenario.route.path.pose(world.scenario.start_s, left)
    world.ego = replace(world.ego, x=x, y=y, yaw=yaw)
    world.traffic.set_ego(world.ego)
    return world


def test_being_struck_from_behind_or_while_standing_is_no_fault_of_an_ego_in_its_lane() -> None:
    world = World(make_scenario("free_road", 9))
    assert world.ego.speed > 3.0
    assert at_fault(world, beside(world, 4.2, 0.0))
    assert at_fault(world, beside(world, 0.0, 1.7))
    assert not at_fault(world, beside(world, -4.2, 0.3))
    assert at_fault(moved_aside(world, 2.0), beside(world, -4.2, 0.3))
    world = moved_aside(world, 0.0)
    world.ego = replace(world.ego, speed=0.0)
    assert not at_fault(world, beside(world, 4.2, 0.0))
    assert at_fault(moved_aside(world, 2.0), beside(world, 4.2, 0.0))


def test_time_to_collision_is_the_gap_over_the_closing_speed() -> None:
    world = World(make_scenario("free_road", 9))
    traffic = world.traffic
    traffic.x[:-1] = traffic.y[:-1] = 1e5
    assert time_to_collision(world) == np.inf
    ahead = beside(world, 24.0, 0.0)
    traffic.x[0], traffic.y[0], traffic.yaw[0], traffic.speed[0] = ahead.x, ahead.y, ahead.yaw, world.ego.speed - 6.0
    world.ego = replace(world.ego, speed=max(world.ego.speed, 8.0))
    closing = world.ego.speed - traffic.speed[0]
    gap = 24.0 - (traffic.stage.length[0] + traffic.stage.length[-1]) / 2
    assert time_to_collision(world) == pytest.approx(gap / closing, abs=0.11)
    world.ego = replace(world.ego, speed=0.0)
    assert time_to_collision(world) == np.inf
