"""Which scenarios who drives, and that results do not depend on the number of processes."""

from typing import Any

import pytest

from opendrivevla_ros.evaluation import closed_loop_runs
from opendrivevla_ros.evaluation.closed_loop import Sight
from opendrivevla_ros.evaluation.closed_loop_report import results_of
from opendrivevla_ros.evaluation.closed_loop_runs import (
    FAMILIES_THAT_NEED_EYES,
    ClosedLoopSettings,
    policy_infos,
    run_closed_loop,
)
from opendrivevla_ros.evaluation.world_scenes import EvaluationError
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.world.families import FAMILIES
from opendrivevla_ros.world.seeds import Split, split_of


def test_by_default_ten_test_scenarios_of_every_family_are_driven() -> None:
    settings = ClosedLoopSettings("checkpoints/small", beside=("constant_velocity", "out/ego_state"))
    names = [driver.name for driver in settings.drivers]
    assert names[:4] == ["small", "expert", "constant_velocity", "ego_state"]
    assert names[4:] == ["small, black pictures", "small, shuffled cameras"]
    for driver in settings.drivers:
        places = settings.driven_by(driver)
        families = FAMILIES if driver.sight is Sight.SEEING else FAMILIES_THAT_NEED_EYES
        assert {family for family, _ in places} == set(families)
        assert len(set(places)) == len(places) == 10 * len(families)
        assert all(split_of(seed) is Split.TEST for _, seed in places)


def test_nobody_drives_twice_and_folders_of_one_name_are_told_apart() -> None:
    itself = ClosedLoopSettings("constant_velocity", beside=("constant_velocity",))
    assert [driver.name for driver in itself.drivers][:2] == ["constant_velocity", "expert"]
    assert len(itself.drivers) == 4
    twins = ClosedLoopSettings("first/small", beside=("second/small",))
    assert [driver.name for driver in twins.drivers][:3] == ["first/small", "expert", "second/small"]


def test_what_cannot_be_driven_is_said_in_a_sentence() -> None:
    with pytest.raises(EvaluationError, match=r"no scenario family 'moon'; choose from free_road, "):
        ClosedLoopSettings("constant_velocity", families=("moon",))
    with pytest.raises(EvaluationError, match="0 scenarios of 14 families"):
        ClosedLoopSettings("constant_velocity", scenarios=0)
    with pytest.raises(CheckpointError, match="no_such_folder"):
        policy_infos(ClosedLoopSettings("constant_velocity", beside=("no_such_folder",)))


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    for row in [*results["drivers"].values(), *results["drives"]]:
        row.pop("plan_ms")
    return results


def test_one_process_and_two_come_to_the_same_results_in_the_same_order() -> None:
    settings = ClosedLoopSettings("constant_velocity", families=("stopped_lead",), scenarios=2)
    infos = policy_infos(settings)
    told: list[tuple[int, int]] = []
    one = run_closed_loop(settings, infos, processes=1, progress=lambda *done: told.append(done))
    two = run_closed_loop(settings, infos, processes=2)
    assert without_times(results_of(one)) == without_times(results_of(two))
    assert told == [(done, 8) for done in range(1, 9)]
    who = [(drive.driver, drive.family, drive.seed) for drive in one.drives]
    assert who == [(driver.name, *place) for driver in settings.drivers for place in settings.driven_by(driver)]


def test_a_drive_that_breaks_says_which_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*arguments: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(closed_loop_runs, "drive_policy", breaks)
    settings = ClosedLoopSettings("constant_velocity")
    task = closed_loop_runs._Task(settings.drivers[0], "bend", 9, "cpu", "float32")
    with pytest.raises(EvaluationError, match="constant_velocity in bend 9 failed: RuntimeError: no such operator"):
        closed_loop_runs._run(task)
