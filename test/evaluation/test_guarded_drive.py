"""Drives through the guard: what it makes of what breaks, and what the figures say of it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opendrivevla_ros.cli.main import app
from opendrivevla_ros.evaluation.fault_report import FaultSettings, markdown, run_faults
from opendrivevla_ros.evaluation.faults import FAULTS, fault_named
from opendrivevla_ros.evaluation.guarded_drive import GuardedDrive, drive_guarded
from opendrivevla_ros.evaluation.world_scenes import EvaluationError
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.seeds import Split, seed_of

FAULT_S = 5.0


def driven(fault: str = "", family: str = "free_road") -> GuardedDrive:
    scenario = make_scenario(family, seed_of(Split.VALIDATION, 0))
    return drive_guarded(scenario, fault_named(fault) if fault else None, FAULT_S)


def test_a_clean_drive_arrives_and_nothing_alarms() -> None:
    drive = driven()
    assert drive.completion == 1.0
    assert (drive.collided, drive.alarms, drive.unsafe) == (False, 0, 0)
    assert drive.sent >= 20
    assert drive.fault_s is None


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.within_s is not None], ids=lambda fault: fault.name
)
def test_every_fault_that_can_be_seen_is_answered_in_its_time(fault) -> None:
    drive = driven(fault.name)
    assert drive.nominal
    assert drive.reaction_s is not None
    assert drive.reaction_s <= fault.within_s + 1e-9
    assert drive.spoiled == drive.unsafe == 0
    assert not drive.collided


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("model killed", "heartbeat"),
        ("all cameras dead", "old"),
        ("odometry dead", "own motion"),
        ("plans off by 10 m", "sideways"),
        ("plans not finite", "finite"),
    ],
)
def test_the_answer_names_what_is_wrong_and_the_vehicle_stands(fault: str, word: str) -> None:
    drive = driven(fault)
    assert word in drive.answer
    assert drive.standing
    assert drive.completion < 1.0


def test_what_is_less_than_it_should_be_does_not_stop_the_vehicle() -> None:
    drive = driven("one camera dead, shown black")
    assert drive.completion == 1.0
    assert "CAM_FRONT blank" in drive.answer


def test_without_the_guard_nothing_is_sent_and_the_vehicle_stands() -> None:
    drive = driven("guard killed, back after 1 s")
    before = driven().sent
    assert drive.standing
    assert drive.sent < before / 2  # back, it is disarmed
    assert not drive.collided


def test_figures_are_of_the_drives_and_the_same_in_any_number_of_processes() -> None:
    settings = FaultSettings(scenarios=2, faults=("plans not finite", "plans late by 0.3 s"))
    results = run_faults(settings, processes=2)
    assert json.loads(json.dumps(results)) == json.loads(json.dumps(run_faults(settings, processes=1)))
    assert len(results["drives"]) == 6
    row = results["faults"]["plans not finite"]
    assert (row["drives"], row["answered"], row["spoiled"]) == (2, 2, 0)
    assert results["none"]["collisions"] == 0
    table = markdown(results)
    assert "| plans not finite | 2 | 2 of 2 | 0.00 / 0.00 | 0.15 | 0 (0), 0 | 0 | 0 | 2 |" in table
    with pytest.raises(EvaluationError, match="unknown fault 'rain'; choose from model killed"):
        run_faults(FaultSettings(faults=("rain",)))


def test_the_command_writes_the_table_where_it_belongs(tmp_path: Path) -> None:
    page = tmp_path / "safety.md"
    page.write_text("before\n<!-- evaluation -->\n<!-- end of evaluation -->\nafter\n")
    arguments = ["evaluate", "faults", "--output", str(tmp_path / "out"), "--scenarios", "1", "--processes", "1"]
    result = CliRunner().invoke(app, [*arguments, "--fault", "odometry dead", "--write", str(page)])
    assert result.exit_code == 0, result.output
    assert "| odometry dead | 1 |" in page.read_text()
    assert page.read_text().endswith("after\n")
    assert (tmp_path / "out" / "results.json").is_file()
