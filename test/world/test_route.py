"""Routes: commands before junctions, and a speed that bends allow."""

import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.road_shapes import Piece, reference_line
from opendrivevla_ros.world.route import COMMAND_AHEAD, Route, comfortable_speed

COMMANDS = {
    "junction_left": Command.TURN_LEFT,
    "junction_right": Command.TURN_RIGHT,
    "junction_straight": Command.KEEP_FORWARD,
}


@pytest.mark.parametrize(("family", "command"), COMMANDS.items())
def test_a_turn_is_announced_before_its_junction_and_holds_to_its_exit(family: str, command: Command) -> None:
    route = make_scenario(family, 5).route
    junction = route.junction
    assert junction is not None
    assert route.command_at(junction.entry - COMMAND_AHEAD - 1.0) is Command.KEEP_FORWARD
    assert route.command_at(junction.stop) is command
    assert route.command_at(junction.exit - 1.0) is command
    assert route.command_at(junction.exit + 1.0) is Command.KEEP_FORWARD


@pytest.mark.parametrize(
    ("family", "turned"), [("junction_left", 1), ("junction_right", -1), ("junction_straight", 0)]
)
def test_a_route_turns_at_its_junction_as_commanded(family: str, turned: int) -> None:
    for seed in range(8):
        route = make_scenario(family, seed).route
        assert route.junction is not None
        samples = (int(route.junction.entry / route.path.spacing), int(route.junction.exit / route.path.spacing))
        before, after = route.path.heading[list(samples)]
        assert after - before == pytest.approx(turned * np.pi / 2, abs=0.4)


def test_the_comfortable_speed_keeps_lateral_acceleration_and_deceleration_low() -> None:
    path = Path.through(reference_line((0.0, 0.0, 0.0), [Piece(80.0), Piece.bend(15.0, 1.4), Piece(40.0)]))
    speed = comfortable_speed(path, 13.0)
    assert speed.max() == pytest.approx(13.0)
    assert (speed**2 * np.abs(path.curvature)).max() < 2.01
    assert (-np.diff(speed**2) / (2 * path.spacing)).max() < 1.31


def test_lanes_that_do_not_follow_each_other_are_refused() -> None:
    road = make_scenario("junction_left", 0).road
    with pytest.raises(ValueError, match="does not follow"):
        Route.along(road, (0, 1))
