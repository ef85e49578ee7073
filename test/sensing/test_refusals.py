"""The reasons of refusals against msg/PlanStatus.msg."""

import re
from pathlib import Path

import pytest

from opendrivevla_ros.sensing.refusals import ObservationError, ObservationFailure, Refusal, Refused

PLAN_STATUS = Path(__file__).parents[2] / "msg" / "PlanStatus.msg"


def test_observation_failures_are_the_constants_below_ten_of_plan_status() -> None:
    constants = dict(re.findall(r"^uint8 ([A-Z_]+)=(\d+)", PLAN_STATUS.read_text(), re.MULTILINE))
    of_observations = {name: int(value) for name, value in constants.items() if 0 < int(value) < 10}
    assert {failure.name: failure.value for failure in ObservationFailure} == of_observations


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_belongs_to_a_result_of_plan_status(refusal: Refusal) -> None:
    assert isinstance(refusal.failure, ObservationFailure)
    assert refusal.value == refusal.name.lower()


def test_only_a_clock_jump_and_restarted_odometry_clear_the_state() -> None:
    assert [r for r in Refusal if r.clears_state] == [Refusal.ODOMETRY_RESTARTED, Refusal.CLOCK_JUMP]


def test_an_observation_error_carries_its_refusal() -> None:
    error = ObservationError(Refused(Refusal.BAD_IMAGE, "cam_back: cut off", "cam_back", 7))
    assert (error.reason, error.camera, str(error)) == (Refusal.BAD_IMAGE, "cam_back", "cam_back: cut off")
