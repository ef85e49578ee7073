"""Figures of confidence, and a calibration that a checkpoint takes, keeps, and refuses for other weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from opendrivevla_ros.cli.main import app
from opendrivevla_ros.core.plan import Doubt
from opendrivevla_ros.evaluation.confidence import SurePlan, confidence_result, record_confidence
from opendrivevla_ros.evaluation.world_scenes import EvaluationError, evaluation_scenes
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.safety.uncertainty import Calibration, score

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "small"


def test_figures_of_plans_that_are_as_sure_as_they_are_good() -> None:
    plans = [
        SurePlan(confidence, Doubt(confidence), error) for confidence, error in ((0.95, 0.5), (0.9, 1.9), (0.05, 9))
    ]
    result = confidence_result(plans, policy="small", scenes=1)
    assert result.bad_share == pytest.approx(1 / 3)
    assert result.area == 1.0
    assert result.calibration_error == pytest.approx((2 * 0.075 + 0.05) / 3)
    assert result.thresholds[0] == (0.1, pytest.approx(1 / 3), 1.0)
    assert "| small | 3 | 33.3 % | 0.067 | 1.000 |" in result.markdown()
    assert json.loads(result.to_json())["plans"] == 3
    with pytest.raises(EvaluationError, match="small made no plan"):
        confidence_result([], policy="small", scenes=1)


def test_a_policy_tells_its_doubts_in_a_scene() -> None:
    policy = load_policy("opendrivevla-small-random")
    (scene,) = evaluation_scenes(1)
    plans = record_confidence(scene, policy)
    assert len(plans) >= 10
    assert all(plan.doubt.spread is not None and 0 < plan.doubt.token_probability <= 1 for plan in plans)
    assert all(plan.confidence == score(plan.doubt) for plan in plans)  # it has no calibration
    assert record_confidence(scene, policy) == plans  # whatever it drew before, and so in whatever process


def test_the_command_calibrates_a_checkpoint_whose_weights_alone_take_it(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(SHIPPED, folder)
    (folder / "calibration.json").unlink(missing_ok=True)
    arguments = ["calibrate", str(folder), "--scenes", "2", "--processes", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    calibration = Calibration.load(folder)
    assert calibration is not None
    (scene,) = evaluation_scenes(1)
    plan = record_confidence(scene, load_policy(folder))[0]
    assert plan.confidence == calibration.confidence(plan.doubt)

    written = (folder / "calibration.json").read_bytes()
    result = CliRunner().invoke(app, [*arguments[:2], "--scenes", "1", "--processes", "1"])
    assert result.exit_code == 1
    assert "too few to calibrate" in result.output
    assert (folder / "calibration.json").read_bytes() == written, "nothing is lost"

    replace(calibration, weights_hash="ab" * 32).save(folder)
    with pytest.raises(CheckpointError, match=r"of other weights \(abababababab\)"):
        load_policy(folder)


def test_a_baseline_has_no_doubts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"policy": "ego_state"}')
    result = CliRunner().invoke(app, ["calibrate", str(tmp_path)])
    assert result.exit_code == 1
    assert "has no doubts to measure" in result.output
