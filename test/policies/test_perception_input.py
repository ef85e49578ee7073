"""What the perception network is told of the ego."""

import numpy as np

from opendrivevla_ros.core.ego import Command, EgoState
from opendrivevla_ros.perception.ego_query import EGO_NUMBERS
from opendrivevla_ros.policies.opendrivevla.perception_input import ego_numbers


def test_ego_numbers_tell_motion_and_command():
    zero = np.zeros(3)
    ego = EgoState(0, np.eye(4), np.array([20.0, 0.0, 0.0]), np.array([-6.0, 1.0, 0.0]), zero, np.zeros((4, 3)))
    numbers = {command: ego_numbers(ego, command) for command in Command}
    assert {len(row) for row in numbers.values()} == {EGO_NUMBERS}
    assert all(row[0] == 2.0 and row[3] == -2.0 for row in numbers.values())  # braking is negative
    assert len({tuple(row.tolist()) for row in numbers.values()}) == len(Command)
