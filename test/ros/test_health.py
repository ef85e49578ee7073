"""The one state of the node, from what it did lately."""

import time

import pytest
from opendrivevla_ros.msg import VlaStatus

from opendrivevla_ros.ros.health import RECENT_NS, Health, Phase
from opendrivevla_ros.sensing.refusals import Refusal, Refused


@pytest.fixture
def active() -> Health:
    health = Health(phase=Phase.ACTIVE)
    health.activated()
    return health


def test_without_configuration_the_state_is_unconfigured_or_the_fault_that_prevented_it() -> None:
    assert Health().state() == (VlaStatus.UNCONFIGURED, "")
    assert Health(fault="no weights").state() == (VlaStatus.FAULT, "no weights")


def test_an_active_node_waits_until_the_first_attempt(active: Health) -> None:
    active.activated_ns -= 60_000_000_000
    assert active.state()[0] == VlaStatus.WAITING
    active.not_ready = "no /clock"
    assert active.state() == (VlaStatus.WAITING, "no /clock")


def test_refusals_alone_become_a_fault_after_the_timeout(active: Health) -> None:
    active.refused("cam_back is dark", ("bad_image",))
    assert active.state() == (VlaStatus.WAITING, "cam_back is dark")
    active.activated_ns -= 3_000_000_000
    state, reason = active.state()
    assert state == VlaStatus.FAULT
    assert "cam_back is dark" in reason


def test_plans_make_it_planning_or_degraded_and_silence_makes_it_a_fault(active: Health) -> None:
    active.planned(age_s=0.1, skew_s=0.0, degraded=())
    assert active.state() == (VlaStatus.PLANNING, "")
    active.planned(age_s=0.1, skew_s=0.0, degraded=("cam_back held",))
    assert active.state() == (VlaStatus.DEGRADED, "cam_back held")
    assert active.last_plan_ns is not None
    active.last_plan_ns -= 3_000_000_000
    assert active.state()[0] == VlaStatus.FAULT


def test_a_device_that_failed_is_a_fault_at_once_until_it_gives_a_plan(active: Health) -> None:
    active.planned(age_s=0.1, skew_s=0.0, degraded=())
    active.broken = "memory ran out: 3 GiB"
    assert active.state() == (VlaStatus.FAULT, "memory ran out: 3 GiB")
    active.planned(age_s=0.1, skew_s=0.0, degraded=())
    assert active.state() == (VlaStatus.PLANNING, "")


def test_a_refusal_is_recent_for_a_second_and_forgotten_by_a_reset(active: Health, monkeypatch) -> None:
    refused = Refused(Refusal.TOO_LATE, "late", "cam_back", 0)
    active.note(refused)
    assert active.recent("cam_back") is refused
    assert active.recent("cam_front") is None
    now = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now + RECENT_NS)
    assert active.recent("cam_back") is None
    monkeypatch.undo()
    active.forget()
    assert active.recent("cam_back") is None
