"""How a drive ends: collisions, off the road, out of time."""

from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import drive
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.vehicle import EgoCommand


def test_a_blind_driver_collides_and_one_who_steers_away_leaves_the_road() -> None:
    blind = drive(
        World(make_scenario("stopped_lead", 0)), lambda world: EgoCommand(0.5, expert_command(world).steering)
    )
    assert blind.collision is not None
    assert not blind.passed
    astray = drive(World(make_scenario("free_road", 0)), lambda world: EgoCommand(0.5, -0.2))
    assert astray.off_road
    assert not astray.passed


def test_who_stands_still_is_out_of_time() -> None:
    outcome = drive(World(make_scenario("free_road", 2)), lambda world: EgoCommand(-3.0, 0.0))
    assert not outcome.in_time
    assert outcome.completion < 0.3
    assert outcome.collision is None
