"""Incident folders: how often, how much, and what cannot be written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros.harness import wait_until

from opendrivevla_ros.ros.incidents import REPORT, Incident, Incidents, shrink, write
from opendrivevla_ros.safety.plan_checks import Check
from opendrivevla_ros.safety.supervisor import State, Transition

SECOND_NS = 1_000_000_000


def incident(folder: Path, seconds: float = 0.0, **limits: float) -> Incident:
    parameters: dict[str, Any] = {"incidents.period": 10.0, "incidents.megabytes": 1.0}
    parameters |= {f"incidents.{name}": value for name, value in limits.items()} | {"incidents.folder": str(folder)}
    return Incident(
        stamp_ns=1_700_000_000 * SECOND_NS + round(seconds * SECOND_NS),
        transition=Transition(State.NOMINAL, State.TAKEOVER, ("no odometry",)),
        checks=(Check("overlap", np.inf, 1.5, np.inf, "it meets nobody"),),
        candidate=None,
        stop=None,
        scene=None,
        odometry=(np.array([1, 2]), np.zeros((2, 13))),
        parameters=parameters,
    )


def test_one_incident_a_period_is_written_and_a_clock_that_went_back_writes_again(tmp_path: Path) -> None:
    incidents = Incidents(pytest.fail)
    times = (0.0, 5.0, 9.9, 10.0, 19.0, -100.0)
    written = [incidents.report(incident(tmp_path, seconds)) is not None for seconds in times]
    assert written == [True, False, False, True, False, True]
    wait_until(lambda: len(list(tmp_path.glob(f"*/{REPORT}"))) == 3, "three incidents")
    assert all(path.name.endswith("_takeover") for path in tmp_path.iterdir())
    assert incidents.report(incident(tmp_path, 500.0, megabytes=0)) is None


def test_the_oldest_go_when_there_are_too_many_and_the_newest_stays(tmp_path: Path) -> None:
    for number in range(4):
        write(incident(tmp_path), tmp_path / f"{number}_fallback")
        (tmp_path / f"{number}_fallback" / "picture.jpg").write_bytes(bytes(400_000))
    (tmp_path / "0_notes").mkdir()  # somebody else's
    shrink(tmp_path, 1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_notes", "2_fallback", "3_fallback"]
    shrink(tmp_path, 0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_notes", "3_fallback"]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    Incidents(told.append).report(incident(tmp_path / "file"))
    wait_until(lambda: told, "a sentence")
    assert "an incident cannot be written" in told[0]
    assert "see incidents.folder" in told[0]
