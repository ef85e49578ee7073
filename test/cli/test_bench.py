"""`odv bench`: one table of every precision, and the same figures as JSON."""

import json
from pathlib import Path

from typer.testing import CliRunner

from opendrivevla_ros.cli.main import app

ODV = CliRunner(env={"COLUMNS": "200"})


def test_every_precision_is_measured_on_the_same_samples(tmp_path: Path) -> None:
    arguments = ["--scenes", "1", "--samples", "3", "--scenarios", "1", "--processes", "1", "--output", str(tmp_path)]
    result = ODV.invoke(app, ["bench", "opendrivevla-small", *arguments])
    assert result.exit_code == 0, result.output
    (found,) = json.loads((tmp_path / "results.json").read_text())
    assert (found["checkpoint"], found["samples"], found["trained"]) == ("opendrivevla-small", 3, True)
    rows = found["precisions"]
    assert list(rows) == ["float32", "bfloat16", "int8"]
    assert rows["int8"]["of_half"] <= 0.55
    assert rows["int8"]["of_full"] <= 0.28
    assert rows["float32"]["time_p50"] == 1.0
    assert all(row["plan_p50_ms"] > 0 and row["load_s"] > 0 and row["failures"] == 0 for row in rows.values())
    assert rows["float32"]["largest_distance"] == 0.0
    assert 0 <= rows["int8"]["mean_distance"] <= rows["int8"]["largest_distance"] < 5.0
    for row in rows.values():
        low, high = row["driving"]["interval"]
        assert 0 <= low <= row["driving"]["driver_score"] <= high <= 1
        assert row["driving"]["scenarios"] == 1
    table = (tmp_path / "results.md").read_text()
    assert table.count("\n| int8 | ") == 2  # of weights and of plans
    assert "int8" in result.output


def test_a_policy_without_a_language_model_is_one_sentence(tmp_path: Path) -> None:
    result = ODV.invoke(app, ["bench", "constant_velocity", "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "constant_velocity has no language model to be in a precision; give an OpenDriveVLA" in result.output


def test_a_device_without_a_kernel_is_one_sentence(tmp_path: Path) -> None:
    result = ODV.invoke(app, ["bench", "opendrivevla-small", "--device", "meta", "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "has no kernel on device 'meta'" in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []
