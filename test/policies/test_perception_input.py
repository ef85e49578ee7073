"""What the perception network is told of the ego."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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


@given(
    speed=st.floats(0, 20),
    acceleration=st.floats(-6, 3),
    yaw_rate=st.floats(-0.5, 0.5).filter(lambda rate: abs(rate) > 1e-3),
)
def test_ego_numbers_tell_the_accelerations_of_the_history(speed: float, acceleration: float, yaw_rate: float):
    ago = np.array([2.0, 1.5, 1.0, 0.5])
    straight = np.stack([-speed * ago + acceleration * ago**2 / 2, 0 * ago, 0 * ago], 1)
    angle = -yaw_rate * ago
    circle = np.stack([speed / yaw_rate * np.sin(angle), speed / yaw_rate * (1 - np.cos(angle)), angle], 1)
    told = {}
    for name, history in (("straight", straight), ("circle", circle)):
        ego = EgoState(0, np.eye(4), np.array([speed, 0.0, 0.0]), np.zeros(3), np.zeros(3), history)
        told[name] = ego_numbers(ego, Command.KEEP_FORWARD)[-12:].numpy().reshape(4, 3)
    np.testing.assert_allclose(told["straight"], [[acceleration / 3, 0.0, 0.0]] * 4, atol=1e-5)
    np.testing.assert_allclose(told["circle"][:, 2], yaw_rate, atol=1e-5)
    np.testing.assert_allclose(told["circle"][3, 1], speed * yaw_rate / 3, rtol=0.01, atol=1e-5)
