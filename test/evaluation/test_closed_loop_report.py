"""Figures, tables and pictures of closed-loop drives."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from opendrivevla_ros.evaluation.closed_loop import Drive, drive_with
from opendrivevla_ros.evaluation.closed_loop_pictures import draw_all
from opendrivevla_ros.evaluation.closed_loop_report import markdown, reasons, results_of, wilson
from opendrivevla_ros.evaluation.closed_loop_runs import ClosedLoop, ClosedLoopSettings, policy_infos
from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import CommandResult
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Category
from opendrivevla_ros.world.vehicle import EgoCommand

FAMILIES = ("junction_right", "stopped_lead")


def ram(world: World) -> EgoCommand:
    return EgoCommand(1.0, expert_command(world).steering)


@cache
def ran() -> ClosedLoop:
    """The policy and the policy in the dark drive as the expert does; the others ram whatever is ahead."""
    settings = ClosedLoopSettings("constant_velocity", beside=("opendrivevla-small-random",), families=FAMILIES)
    settings = replace(settings, scenarios=1)
    drives: list[Drive] = []
    for driver in settings.drivers:
        expert = driver.name in ("expert", "constant_velocity", "constant_velocity, black pictures")
        for family, seed in settings.driven_by(driver):
            drive = drive_with(driver.name, make_scenario(family, seed), expert_command if expert else ram)
            if driver.policy:
                drive = replace(drive, plans=9, failures=(("bad_text", 1),), plan_seconds=(0.1, 0.2))
            drives.append(drive)
    return ClosedLoop(settings, policy_infos(settings), tuple(drives))


@pytest.mark.parametrize(
    ("count", "of", "low", "high"), [(0, 10, 0.0, 0.2775), (81, 263, 0.2553, 0.3662), (63, 70, 0.8077, 0.9507)]
)
def test_wilson_s_interval_has_its_published_values(count: int, of: int, low: float, high: float) -> None:
    """81 of 263: Newcombe (1998), table I, method 3."""
    assert wilson(count, of) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert wilson(0, 0) == (0.0, 1.0)


def test_figures_by_driver_and_family_count_what_the_drives_hold() -> None:
    results = results_of(ran())
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    policy, other = results["drivers"]["constant_velocity"], results["drivers"]["opendrivevla-small-random"]
    assert (policy["passed"]["count"], policy["passed"]["of"]) == (2, 2)
    assert (other["passed"]["count"], other["collisions"]["count"], other["at_fault"]) == (0, 2, 2)
    assert policy["command_carried_out"] == {
        "count": 1,
        "of": 1,
        "interval": policy["command_carried_out"]["interval"],
    }
    assert policy["progress_of_expert"] == 1.0
    assert policy["seconds_behind_expert"] == 0.0
    assert (policy["plans"], policy["failures"]) == (18, {"bad_text": 2})
    assert policy["plan_ms"] == {"p50": 150.0, "p95": 200.0, "p100": 200.0}
    assert results["drivers"]["expert"]["plan_ms"] is None
    assert other["trained"] is False
    assert len(other["weights_hash"]) in (0, 64)
    assert results["passed_by_family"]["stopped_lead"]["constant_velocity, shuffled cameras"]["of"] == 1
    assert results["passed_by_family"]["junction_right"]["constant_velocity, shuffled cameras"]["of"] == 0
    assert len(results["drives"]) == 2 + 2 + 2 + 1 + 1


def test_a_policy_that_drives_as_well_in_the_dark_does_not_need_its_eyes() -> None:
    assert results_of(ran())["eyes"] == {"stopped_lead": {"seeing": 1, "black": 1, "shuffled": 0, "needed": False}}
    dark = "constant_velocity, black pictures"
    blind = tuple(
        replace(drive, outcome=replace(drive.outcome, in_time=False)) if drive.driver == dark else drive
        for drive in ran().drives
    )
    assert results_of(replace(ran(), drives=blind))["eyes"]["stopped_lead"]["needed"] is True


def test_the_tables_have_a_row_for_every_driver_and_family() -> None:
    text = markdown(json.loads(json.dumps(results_of(ran()))))
    lines = text.splitlines()
    assert sum(line.startswith("| opendrivevla-small-random |") for line in lines) == 2
    assert "| stopped lead | 1 of 1 | 1 of 1 | 0 of 1 | 1 of 1 | 0 of 1 |" in lines
    assert "| junction right | 1 of 1 | 1 of 1 | 0 of 1 | - | - |" in lines
    assert any(line.startswith("| constant_velocity | 2 of 2, 100 % (34 to 100) | 0 (0) |") for line in lines)
    tables = [line.count("|") for line in lines if line.startswith("|")]
    assert set(tables) == {10, 7}


def test_why_a_drive_did_not_pass_is_said_in_words() -> None:
    outcome = next(drive.outcome for drive in ran().drives if drive.driver == "expert")
    assert reasons(outcome) == ""
    struck = replace(outcome, collision=Category.CAR, in_time=False)
    assert reasons(struck) == "collision with car, not at fault"
    lost = replace(outcome, in_time=False, command=CommandResult.ANOTHER_WAY, off_road=True, most_lateral=15.2)
    assert reasons(lost) == "off its route; off road; 15.2 m off its lane's middle"
    assert reasons(replace(outcome, in_time=False, command=None)) == "not at the goal in time"


def test_there_is_a_picture_of_each_failed_drive_and_one_of_all(tmp_path: Path) -> None:
    drives = [
        replace(drive, trace=replace(drive.trace, plan=drive.trace.ego[-6:, :2] + 3.0)) for drive in ran().drives
    ]
    draw_all(drives, "opendrivevla-small-random", tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["junction_right_9.png", "overview.png", "stopped_lead_9.png"]
    for path in tmp_path.iterdir():
        picture = cv2.imread(str(path))
        assert min(picture.shape[:2]) > 150
        assert np.ptp(picture) == 255
    good = tmp_path / "good"
    good.mkdir()
    draw_all(drives, "constant_velocity", good)
    assert [path.name for path in good.iterdir()] == ["overview.png"]
