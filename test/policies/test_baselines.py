"""The constant-velocity baseline."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.ego import DrivingCommand, EgoState
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import PlanError, PlanFailure
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy, continued_arc
from opendrivevla_ros.policies.registry import CheckpointError, load_policy


def ego(vx: float = 5.0, vy: float = 0.0, yaw_rate: float = 0.0) -> EgoState:
    return EgoState(
        stamp_ns=0,
        base_to_world=np.eye(4),
        velocity=np.array([vx, vy, 0.0]),
        acceleration=np.zeros(3),
        angular_velocity=np.array([0.0, 0.0, yaw_rate]),
        history=np.zeros((4, 3)),
    )


def observation(state: EgoState) -> Observation:
    return Observation(0, (), CameraRig(()), state, DrivingCommand())


def test_straight_motion_is_continued_in_a_straight_line() -> None:
    plan = ConstantVelocityPolicy().plan(observation(ego(vx=4.0)))
    np.testing.assert_allclose(plan.trajectory.xy, np.column_stack([4.0 * FUTURE_TIMES_S, np.zeros(6)]), atol=1e-12)
    np.testing.assert_allclose(plan.trajectory.velocity, 4.0)
    assert (np.diff(plan.trajectory.covariance[:, 0, 0]) > 0).all()


@given(st.floats(-3, 20), st.floats(-1, 1), st.floats(-1, 1))
def test_the_arc_equals_small_steps_of_the_same_motion(vx: float, vy: float, yaw_rate: float) -> None:
    count = 3000
    step = 3.0 / count
    angles = yaw_rate * (np.arange(count) + 0.5) * step
    cosines, sines = np.cos(angles), np.sin(angles)
    steps = np.column_stack([vx * cosines - vy * sines, vx * sines + vy * cosines]) * step
    expected = steps.cumsum(axis=0)[count // 6 - 1 :: count // 6]
    np.testing.assert_allclose(continued_arc(ego(vx, vy, yaw_rate), FUTURE_TIMES_S), expected, atol=1e-4)


def test_an_ego_state_with_nan_gives_a_reason_in_place_of_a_baseline_plan() -> None:
    with pytest.raises(PlanError, match="not finite") as caught:
        ConstantVelocityPolicy().plan(observation(ego(vx=float("nan"))))
    assert caught.value.failure is PlanFailure.BAD_OBSERVATION


def test_a_baseline_whose_deadline_is_past_says_so() -> None:
    with pytest.raises(PlanError) as caught:
        ConstantVelocityPolicy().plan(observation(ego()), deadline_ns=time.monotonic_ns() - 1)
    assert caught.value.failure is PlanFailure.DEADLINE


def test_the_baseline_admits_that_it_sees_nothing() -> None:
    assert "sees no pictures" in "".join(ConstantVelocityPolicy().answer(observation(ego()), "what is ahead?"))


def test_the_baseline_is_loaded_without_importing_torch() -> None:
    program = (
        "import sys; from opendrivevla_ros.policies.registry import load_policy; "
        "load_policy('constant_velocity'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folder_or_name": "no_such_policy"}, "neither a checkpoint folder nor a policy name"),
        ({"folder_or_name": "constant_velocity", "precision": "int3"}, "precision 'int3'"),
        ({"folder_or_name": "constant_velocity", "samples": 4}, "takes no options"),
    ],
)
def test_a_policy_that_cannot_be_loaded_is_refused_with_the_reason(arguments: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_policy(**arguments)
