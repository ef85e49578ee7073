"""`odv evaluate modes`: a model that thinks drives the same scenarios in each mode, and beside another one."""

import json
from pathlib import Path

import pytest
from policies.autovla.tiny import PROPOSING, tiny_model, write_folder
from typer.testing import CliRunner

from opendrivevla_ros.cli.main import app

ODV = CliRunner(env={"COLUMNS": "200"})


def test_every_mode_drives_the_same_scenarios_and_differences_are_from_the_first_row(tmp_path: Path) -> None:
    size = {"image_size": (112, 56)}
    first = write_folder(tmp_path / "first", tiny_model(**size, **PROPOSING))
    other = write_folder(tmp_path / "other", tiny_model(seed=3, **size, **PROPOSING))
    arguments = ["--scenarios", "2", "--processes", "1", "--beside", str(other), "--output", str(tmp_path / "out")]
    result = ODV.invoke(app, ["evaluate", "modes", str(first), *arguments])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["modes"]["rows"]
    modes = ["AUTO", "FAST", "SLOW"]
    assert [(row["checkpoint"], row["mode"]) for row in rows] == [
        (one, mode) for one in ("first", "other") for mode in modes
    ]
    for row in rows:
        assert row["scenarios"] == 2
        assert row["better"]["mean"] == pytest.approx(row["score"]["mean"] - rows[0]["score"]["mean"])
        assert row["score"]["low"] <= row["score"]["mean"] <= row["score"]["high"]
        assert row["plan_seconds"] > 0
        shares = (row["slow_simple"], row["slow_hard"])
        assert {"FAST": max(shares) == 0, "SLOW": shares[0] == 1, "AUTO": 0 <= shares[0] <= 1}[row["mode"]]
    assert rows[0]["better"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert rows[2]["plan_seconds"] > rows[1]["plan_seconds"]
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| first, AUTO | " in table
    assert "| other, SLOW | " in table


@pytest.mark.parametrize("source", ["constant_velocity", "opendrivevla-small"])
def test_a_model_without_thoughts_is_one_sentence(tmp_path: Path, source: str) -> None:
    result = ODV.invoke(app, ["evaluate", "modes", source, "--output", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert f"{source} writes no thoughts, so it has no modes to compare; give one that does" in result.output
