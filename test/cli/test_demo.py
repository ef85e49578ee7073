"""`odv demo`: the main job from one command, here with the baseline that costs nothing."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from opendrivevla_ros.cli.main import app
from opendrivevla_ros.datasets.bags import BagReader

Odv = Callable[..., subprocess.CompletedProcess[str]]


def test_the_demo_drives_over_dds_and_leaves_pictures_a_bag_and_figures(odv: Odv, domain: int, tmp_path: Path) -> None:
    arguments = ("--policy", "constant_velocity", "--seconds", "2", "--domain", str(domain))
    run = odv("demo", "--output", str(tmp_path), *arguments)
    assert run.returncode == 0, run.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["plans"] >= 15
    assert summary["policy"] == "constant_velocity"
    assert summary["topics"]["output/agents"]["count"] == summary["plans"]
    assert "p95_ms" in summary["topics"]["output/trajectory"]
    assert len(summary["pictures"]) == 3
    assert all(cv2.imread(str(tmp_path / name)) is not None for name in summary["pictures"])
    assert "plans over DDS" in run.stdout
    with BagReader(tmp_path / "bag") as bag:
        assert bag.topics["/vla_node/output/trajectory"].count == summary["plans"]
        assert bag.topics["/vla_node/input/cam_back/image/compressed"].count == 24
        assert bag.warnings == []


def test_a_demo_that_cannot_plan_is_one_sentence_and_exit_code_1(odv: Odv, domain: int, tmp_path: Path) -> None:
    run = odv("demo", "--output", str(tmp_path), "--policy", "nothing", "--seconds", "2", "--domain", str(domain))
    assert run.returncode == 1
    assert "vla_node cannot plan" in run.stderr
    assert "nothing" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("command", ["demo", "replay", "play", "doctor", "checkpoint"])
def test_every_subcommand_has_help(command: str) -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert command in result.output
