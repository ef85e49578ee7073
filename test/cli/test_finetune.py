"""`odv finetune` from outside: a bag and a checkpoint in, a checkpoint out, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from training.finetune_inputs import cut_bag, write_bag, write_checkpoint
from typer.testing import CliRunner

from opendrivevla_ros.cli import finetune
from opendrivevla_ros.cli.main import app
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training.metrics import read_metrics


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("drive") / "bag")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The command starts itself in this process; numbers of processes that it was to start."""
    counts: list[int] = []

    def launch(arguments: Sequence[str], processes: int, *, what: str) -> None:
        counts.append(processes)
        with monkeypatch.context() as patch:
            patch.setattr(finetune, "is_launched", lambda: True)
            result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, (what, result.output)

    monkeypatch.setattr(finetune, "launch", launch)
    return counts


def said(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["finetune", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_a_bag_teaches_a_checkpoint_once(bag: Path, checkpoint: Path, tmp_path: Path, launched: list[int]):
    output = tmp_path / "out"
    options = ("--checkpoint", checkpoint, "--output", output, "--steps", 2, "--learning-rate", 1e-3)
    code, text = said(bag, *options, "--processes", 1)
    assert code == 0, text
    assert "moments, 2 steps in" in text
    assert f"checkpoint in {output}/checkpoint" in text
    assert [row["step"] for row in read_metrics(output / "training")] == [1, 2]
    assert load_policy(output / "checkpoint", samples=0).info.trained
    code, text = said(bag, *options)
    assert code == 0, text
    assert "done before: checkpoint in" in text
    assert launched == [1]


def test_what_cannot_be_taught_or_learned_from_is_one_sentence(bag: Path, checkpoint: Path, tmp_path: Path):
    def refused(*arguments: object) -> str:
        code, text = said(*arguments, "--output", tmp_path / "out")
        assert code == 1
        assert text.startswith("error: ")
        assert "Traceback" not in text
        return text

    untrained = write_checkpoint(tmp_path / "untrained", trained=False)
    assert "holds random weights" in refused(bag, "--checkpoint", untrained)
    assert "does not exist; give a bag's folder" in refused(tmp_path / "none", "--checkpoint", checkpoint)
    assert "setting learning_rate must be above 0" in refused(bag, "--checkpoint", checkpoint, "--learning-rate", "-1")
    assert not (tmp_path / "out").exists()
    blink = cut_bag(bag, tmp_path / "blink", 0.3)
    assert "gives no training sample" in refused(blink, "--checkpoint", checkpoint)
