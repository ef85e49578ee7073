"""`odv train` from outside: what it refuses, and a stage that is trained and kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from policies.autovla.tiny import tiny_model, write_folder
from training.autovla.drives import drives
from typer.testing import CliRunner

from opendrivevla_ros.cli import train, train_autovla
from opendrivevla_ros.cli.main import app
from opendrivevla_ros.evaluation.logged_score import driver_reward
from opendrivevla_ros.language.action_lattice import lattice
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer
from opendrivevla_ros.training import recipe
from opendrivevla_ros.training.autovla import recipe as autovla_recipe
from opendrivevla_ros.training.autovla.recipe import AnswerStep, AutoVlaRecipe
from opendrivevla_ros.training.autovla.run import AutoVlaRun
from opendrivevla_ros.training.loop import LoopSettings
from opendrivevla_ros.training.metrics import read_metrics
from opendrivevla_ros.training.recipe import SMALL, OwnDrivesStep, PerceptionStep
from opendrivevla_ros.training.recipe_run import RecipeRun
from opendrivevla_ros.training.times import read_times


def said(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", *arguments])
    return result.exit_code, " ".join(result.output.split())


def test_an_unknown_stage_is_refused_with_those_that_there_are(tmp_path: Path):
    code, output = said("warp", "--output", str(tmp_path))
    assert code == 1
    assert "unknown stage 'warp'; the recipe's are, in their order, expert_drives, held_out_drives, " in output
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_preset_is_refused(tmp_path: Path):
    code, output = said("--preset", "huge", "--output", str(tmp_path))
    assert code == 1
    assert "unknown preset 'huge'; choose one of small" in output


@pytest.mark.parametrize("preset", ["small", "small-thinking"])
def test_a_stage_trains_and_is_done_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str):
    two_steps = LoopSettings(steps=2, learning_rate=1e-3, batch_size=1, warmup_steps=1)
    reads = (recipe.TRAIN, "expert_drives")
    steps = (
        OwnDrivesStep("expert_drives", first=4, scenarios=1, driver=recipe.EXPERT),
        PerceptionStep("perception", two_steps, 2, reads=reads),
    )
    tiny = replace(SMALL, scenarios=1, steps=steps)
    launched: list[list[str]] = []

    def run_here(arguments: list[str], *_: object, **__: object) -> None:
        launched.append(arguments)
        RecipeRun(tiny, tmp_path).run(tiny.step(arguments[1]))

    monkeypatch.setitem(recipe.RECIPES, preset, tiny)
    monkeypatch.setattr(train, "launch", run_here)
    build_small_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    options = ["--preset", preset, "--output", str(tmp_path)]
    code, output = said("perception", *options, "--processes", "1")
    assert code == 0, output
    assert launched == [["train", "perception", *options]]
    assert "perception: 2 steps in" in output
    assert [row["step"] for row in read_metrics(tmp_path / "perception")] == [1, 2]
    assert list(read_times(tmp_path)) == ["drives", "perception"]
    assert len(list((tmp_path / "drives" / "expert_drives").iterdir())) == 1  # which it reads too
    code, output = said("perception", *options, "--processes", "1")
    assert code == 0
    assert "perception: done before" in output


def test_instructions_of_an_unknown_format_are_refused(tmp_path: Path):
    code, output = said(
        "--data", str(tmp_path), "--instructions", "tales:book.json", "--output", str(tmp_path / "run")
    )
    assert code == 1
    assert "--instructions 'tales:book.json' is not FORMAT:FILE with a format of nuscenes-qa, tod3cap" in output


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path):
    code, output = said("--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "run"))
    assert code == 1
    assert "nowhere" in output
    assert "Traceback" not in output


def test_autovla_trains_a_stage_by_its_own_recipe_and_is_done_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    two_steps = LoopSettings(steps=2, learning_rate=1e-3, batch_size=1, warmup_steps=1)
    tiny = AutoVlaRecipe(8, (224, 126), (AnswerStep("answers", two_steps),))
    monkeypatch.setitem(autovla_recipe.RECIPES, "autovla-small", tiny)
    launched: list[list[str]] = []

    def run_here(arguments: list[str], processes: int, *, what: str) -> None:
        launched.append(arguments)
        assert (processes, what) == (1, "the stage answers")
        AutoVlaRun(tiny, tmp_path, driver_reward).run(tiny.training_steps[0])

    monkeypatch.setattr(train_autovla, "launch", run_here)
    build_tokenizer(lattice()).save_pretrained(str(tmp_path / "tokenizer"))
    drives(tmp_path / "drives" / "train")
    monkeypatch.setattr(AutoVlaRun, "draw", lambda run, processes: iter([1.0]))
    options = ("--preset", "autovla-small", "--output", str(tmp_path), "--processes", "1")
    code, output = said("answers", *options)
    assert code == 0, output
    assert launched == [["train", "answers", *options[:4]]]
    assert "answers: 2 steps in" in output
    code, output = said("answers", *options)
    assert code == 0
    assert "answers: done before" in output
    assert len(launched) == 1


def test_a_teacher_plans_before_a_stage_that_it_teaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    two_steps = LoopSettings(steps=2, learning_rate=1e-3, batch_size=1, warmup_steps=1)
    tiny = AutoVlaRecipe(8, (112, 63), (AnswerStep("answers", two_steps),))
    monkeypatch.setitem(autovla_recipe.RECIPES, "autovla-small", tiny)
    teacher = write_folder(tmp_path / "teacher", tiny_model())
    launched: list[list[str]] = []

    def run_here(arguments: list[str], processes: int, *, what: str) -> None:
        launched.append(arguments)
        taught = tiny.taught((112, 56))
        AutoVlaRun(taught, tmp_path, driver_reward, teacher=teacher).run(taught.training_steps[0])

    monkeypatch.setattr(train_autovla, "launch", run_here)
    monkeypatch.setattr(AutoVlaRun, "draw", lambda run, processes: iter([1.0]))
    drives(tmp_path / "drives" / "train", speeds=(4.0,))
    options = ("--preset", "autovla-small", "--output", str(tmp_path), "--teacher", str(teacher), "--processes", "1")
    code, output = said("taught_answers", *options)
    assert code == 0, output
    assert launched == [["train", "taught_answers", *options[:6]]]
    assert "taught_answers: 2 steps in" in output
    assert [row["step"] for row in read_metrics(tmp_path / "taught_answers")] == [1, 2]
    code, output = said("taught_answers", *options)
    assert code == 0
    assert "taught_answers: done before" in output


def test_what_autovla_goes_on_from_is_asked_for_and_refused_elsewhere(tmp_path: Path):
    code, output = said("--preset", "autovla-base", "--output", str(tmp_path))
    assert code == 1
    assert "autovla-base goes on from a checkpoint; give its folder by --start" in output
    code, output = said("--start", str(tmp_path), "--output", str(tmp_path))
    assert code == 1
    assert "--start is of autovla-small and autovla-base, not of small; leave it out" in output
    code, output = said("--teacher", str(tmp_path), "--output", str(tmp_path))
    assert code == 1
    assert "--teacher is of autovla-small and autovla-base, not of small; leave it out" in output
    code, output = said("warp", "--preset", "autovla-small", "--output", str(tmp_path))
    assert code == 1
    assert "unknown stage 'warp'; the recipe's are, in their order, expert_drives, held_out_drives, sight" in output
