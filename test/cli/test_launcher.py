"""Processes that train together: what they are started with, and what is said when they stop."""

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from opendrivevla_ros.cli.console import CommandError
from opendrivevla_ros.cli.launcher import MALLOC, QUIET, is_launched, launch, training_processes, working_processes


def test_a_launch_starts_the_command_in_processes_that_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, Any] = {}

    def run(command: list[str], *, env: dict[str, str], check: bool) -> SimpleNamespace:
        seen.update(command=command, env=env)
        return SimpleNamespace(returncode=seen.get("code", 0))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch(["train", "perception"], 2, what="the stage perception")
    assert seen["command"][-4:] == ["-m", "opendrivevla_ros.cli.main", "train", "perception"]
    assert "--nproc-per-node=2" in seen["command"]
    assert seen["env"]["OMP_NUM_THREADS"] == "4"
    assert (MALLOC | QUIET).items() <= seen["env"].items()
    seen["code"] = 1
    with pytest.raises(CommandError, match="the stage perception stopped; its reason stands above"):
        launch(["train", "perception"], 2, what="the stage perception")


@pytest.mark.parametrize(("cores", "together"), [(1, 1), (2, 2), (3, 2), (6, 4), (16, 4)])
def test_no_more_processes_train_together_than_can_share_a_batch(
    monkeypatch: pytest.MonkeyPatch, cores: int, together: int
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert training_processes(0, batch_size=4) == together
    assert training_processes(3, batch_size=4) == 2
    assert (working_processes(0), working_processes(3)) == (cores, 3)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert training_processes(0, batch_size=4) == 1


def test_a_launched_process_knows_that_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert not is_launched()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert is_launched()
