"""Who goes first at a junction."""

import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.world.right_of_way import RightOfWay
from opendrivevla_ros.world.route import Route
from opendrivevla_ros.world.streets import Crossroads, crossroads


@pytest.fixture(scope="module")
def scene() -> Crossroads:
    for seed in range(50):
        found = crossroads(np.random.default_rng(seed), command=Command.TURN_LEFT, speed_limit=10.0)
        if len(found.arms) == 4 and all(arm.section.lanes == 1 for arm in found.arms):
            return found
    raise AssertionError("no plain crossing in 50 seeds")


def route(scene: Crossroads, arm: int, turn: Command) -> Route:
    incoming = scene.arms[arm].backward[0]
    for lane in scene.map.lanes[incoming].successors:
        if scene.map.lanes[lane].turn is turn:
            return Route.along(scene.map, (incoming, lane, scene.map.lanes[lane].successors[0]))
    raise AssertionError(turn)


def gaps(routes: list[Route], before_stop: list[float], speeds: list[float]) -> dict[int, float]:
    """Who must wait: vehicles of 4 m whose fronts are so many metres before their stop lines, on main roads."""
    rules = RightOfWay(routes, [False] * len(routes))
    stops = [found.junction.stop for found in routes if found.junction]
    s = np.array(stops) - before_stop - 2.0
    return rules.stop_gaps(np.arange(len(routes)), s, np.array(speeds), np.full(len(routes), 4.0))


def test_a_left_turn_waits_for_oncoming_traffic_and_goes_when_there_is_none(scene: Crossroads) -> None:
    left, ahead = route(scene, 0, Command.TURN_LEFT), route(scene, 2, Command.KEEP_FORWARD)
    waiting = gaps([left, ahead], [5.0, 12.0], [3.0, 9.0])
    assert waiting == {0: pytest.approx(5.0)}
    assert gaps([left, ahead], [5.0, 68.0], [3.0, 1.0]) == {}
    assert gaps([left], [5.0], [3.0]) == {}


def test_who_is_already_crossing_is_waited_for_whatever_the_rank(scene: Crossroads) -> None:
    left, ahead = route(scene, 0, Command.TURN_LEFT), route(scene, 2, Command.KEEP_FORWARD)
    assert list(gaps([left, ahead], [-6.0, 12.0], [3.0, 6.0])) == [1]


def test_who_has_crossed_is_not_waited_for(scene: Crossroads) -> None:
    left, ahead = route(scene, 0, Command.TURN_LEFT), route(scene, 2, Command.KEEP_FORWARD)
    assert left.junction is not None
    assert gaps([left, ahead], [left.junction.stop - left.junction.exit - 6.0, 12.0], [6.0, 6.0]) == {}


def test_opposite_straight_ways_do_not_hinder_each_other(scene: Crossroads) -> None:
    one, other = route(scene, 0, Command.KEEP_FORWARD), route(scene, 2, Command.KEEP_FORWARD)
    assert gaps([one, other], [5.0, 5.0], [8.0, 8.0]) == {}


def test_of_four_left_turners_exactly_the_first_need_not_wait(scene: Crossroads) -> None:
    routes = [route(scene, arm, Command.TURN_LEFT) for arm in range(4)]
    waiting = gaps(routes, [4.0] * 4, [0.0] * 4)
    assert 0 not in waiting
    assert set(waiting) >= {1, 3}
