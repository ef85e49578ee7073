"""Meta-actions: thresholds and words of the labels."""

import pytest

from opendrivevla_ros.world.meta_action import (
    Lateral,
    Longitudinal,
    lateral_action,
    longitudinal_action,
    meta_action,
)


@pytest.mark.parametrize(
    ("first", "last", "action"),
    [
        (0.2, 0.2, Longitudinal.STOP),
        (5.0, 0.29, Longitudinal.DECELERATION_TO_ZERO),
        (0.5, 0.2, Longitudinal.DECELERATION_TO_ZERO),
        (5.0, 5.79, Longitudinal.CONSTANT_SPEED),
        (5.0, 4.21, Longitudinal.CONSTANT_SPEED),
        (5.0, 5.81, Longitudinal.ACCELERATION),
        (5.0, 10.1, Longitudinal.QUICK_ACCELERATION),
        (0.0, 2.0, Longitudinal.QUICK_ACCELERATION),
        (5.0, 4.1, Longitudinal.DECELERATION),
        (5.0, 2.4, Longitudinal.QUICK_DECELERATION),
    ],
)
def test_speeds_give_the_longitudinal_action(first: float, last: float, action: Longitudinal) -> None:
    assert longitudinal_action(first, last) is action


@pytest.mark.parametrize(
    ("offsets", "action"),
    [
        ([0.0, 0.5, 1.9], Lateral.FORWARD),
        ([0.0, -1.9, 0.0], Lateral.FORWARD),
        ([0.5, 2.0, 3.9], Lateral.LANE_CHANGE_LEFT),
        ([-0.5, -2.0, -3.9], Lateral.LANE_CHANGE_RIGHT),
        ([0.5, 2.0, 4.1], Lateral.TURN_LEFT),
        ([-0.5, -2.0, -9.0], Lateral.TURN_RIGHT),
    ],
)
def test_offsets_give_the_lateral_action(offsets: list[float], action: Lateral) -> None:
    assert lateral_action(offsets) is action


def test_the_label_joins_both_with_a_fixed_word() -> None:
    assert meta_action(Lateral.TURN_LEFT, Longitudinal.QUICK_DECELERATION) == "turn left with quick deceleration"
