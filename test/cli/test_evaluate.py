"""`odv evaluate world`: parts are kept, files are whole, and what cannot be done is one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from opendrivevla_ros.cli.console import CommandError
from opendrivevla_ros.cli.evaluate import (
    Figures,
    Part,
    closed_loop_part,
    expert_driven_parts,
    run_parts,
    write_section,
)
from opendrivevla_ros.cli.main import app

ODV = CliRunner(env={"COLUMNS": "200"})


class Counting:
    """A part that counts how often it is evaluated."""

    def __init__(self, name: str = "counting") -> None:
        self.name, self.runs = name, 0

    def part(self, **settings: Any) -> Part:
        return Part(self.name, settings, self._run)

    def _run(self, folder: Path, progress: Callable[[float], None]) -> Figures:
        self.runs += 1
        progress(1.0)
        (folder / "picture.png").write_text(f"picture {self.runs}")
        return Figures({"runs": self.runs}, f"run {self.runs}\n")


def test_a_part_with_the_same_settings_is_kept_and_with_others_evaluated_again(tmp_path: Path) -> None:
    counting = Counting()
    for _ in range(2):
        run_parts([counting.part(scenes=3, seeds=(1, 2))], tmp_path)
        assert counting.runs == 1
    assert run_parts([counting.part(scenes=4, seeds=(1, 2))], tmp_path) == {
        "counting": Figures({"runs": 2}, "run 2\n")
    }
    assert json.loads((tmp_path / "results.json").read_text()) == {"counting": {"runs": 2}}
    assert (tmp_path / "results.md").read_text() == "run 2\n"
    assert (tmp_path / "counting" / "picture.png").read_text() == "picture 2"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"counting", "counting.json", "results.json", "results.md"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}', "null"])
def test_a_part_s_file_that_is_broken_is_evaluated_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "counting.json").write_text(text)
    counting = Counting()
    run_parts([counting.part()], tmp_path)
    assert counting.runs == 1
    assert json.loads((tmp_path / "counting.json").read_text())["results"] == {"runs": 1}


def test_only_the_named_parts_are_evaluated_and_the_others_stay_in_the_results(tmp_path: Path) -> None:
    first, second = Counting("first"), Counting("second")
    parts = [first.part(), second.part()]
    assert list(run_parts(parts, tmp_path, only=["second"])) == ["second"]
    assert list(run_parts(parts, tmp_path, only=["first"])) == ["first", "second"]
    assert (first.runs, second.runs) == (1, 1)
    with pytest.raises(CommandError, match="no part 'third' of the evaluation; choose from first, second"):
        run_parts(parts, tmp_path, only=["third"])


def test_a_part_that_fails_leaves_what_was_there_before(tmp_path: Path) -> None:
    counting = Counting()
    run_parts([counting.part()], tmp_path)

    def fails(folder: Path, progress: Callable[[float], None]) -> Figures:
        (folder / "half.png").write_text("half a picture")
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match="No space left"):
        run_parts([Part("counting", {"other": 1}, fails)], tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_command_drives_writes_figures_and_pictures_and_keeps_them(tmp_path: Path) -> None:
    arguments = ["evaluate", "world", "--checkpoint", "constant_velocity", "--only", "closed-loop"]
    arguments += ["--scenarios", "1", "--family", "stopped_lead", "--output", str(tmp_path / "out")]
    readme = tmp_path / "README.md"
    readme.write_text("# A package\n<!-- evaluation summary -->\n<!-- end of evaluation summary -->\n")
    arguments += ["--write", str(readme)]
    done = ODV.invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert "stopped lead" in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())["closed-loop"]
    assert results["drivers"]["expert"]["passed"]["count"] == 1
    assert results["drivers"]["constant_velocity"]["collisions"]["count"] == 1
    assert "| expert | 1 of 1" in (tmp_path / "out" / "results.md").read_text()
    assert "| expert | 1 of 1 | 0 | - | - | - | - |" in readme.read_text()
    pictures = sorted(path.name for path in (tmp_path / "out" / "closed-loop").iterdir())
    assert pictures == ["overview.png", "stopped_lead_9.png"]
    again = ODV.invoke(app, arguments)
    assert again.exit_code == 0
    assert "closed-loop: kept from" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--checkpoint", "no_such_folder"], "'no_such_folder' is neither a checkpoint folder nor a policy name"),
        (["--beside", "no_such_folder"], "'no_such_folder' is neither a checkpoint folder nor a policy name"),
        (["--family", "moon"], "no scenario family 'moon'; choose from free_road, bend"),
        (["--only", "text"], "no part 'text' of the evaluation; choose from closed-loop, open-loop"),
        (["--output", "{file}"], "cannot write to {file}: File exists; choose another --output"),
        (["--output", "{file}/below"], "cannot write to {file}/below: Not a directory; choose another --output"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    defaults = [] if "--checkpoint" in arguments else ["--checkpoint", "constant_velocity"]
    defaults += [] if "--output" in arguments else ["--output", str(tmp_path / "out")]
    given = [argument.format(file=file) for argument in arguments]
    done = ODV.invoke(app, ["evaluate", "world", *defaults, *given])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert sentence.format(file=file) in done.stderr
    assert not (tmp_path / "out" / "results.json").exists()


def test_what_a_checkpoint_is_made_of_tells_whether_its_figures_are_kept_and_so_do_device_and_precision(
    tmp_path: Path,
):
    folder = tmp_path / "ego"
    shutil.copytree(Path(__file__).parents[2] / "checkpoints" / "ego_state", folder)

    def settings(**changes: str) -> list[Any]:
        given = {"device": "cpu", "precision": "float32", **changes}
        driven = closed_loop_part(str(folder), beside=(), families=(), scenarios=1, processes=1, **given)
        parts = [driven, *expert_driven_parts(str(folder), beside=(), scenes=1, processes=1, **given)]
        return [part.settings for part in parts]

    before = settings()
    (folder / "README.md").write_text("Another card.\n")
    assert settings() == before
    for changed in (settings(precision="bfloat16"), (folder / "calibration.json").write_text("{}") and settings()):
        assert all(one != other for one, other in zip(changed, before, strict=True))


def test_tables_take_the_place_between_the_marks_and_leave_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Model\n\n<!-- evaluation -->\nold\n<!-- end of evaluation -->\n\nThe end.\n")
    for tables in ("| first |\n", "| second |\n"):
        write_section(path, tables)
    expected = "# Model\n\n<!-- evaluation -->\n| second |\n<!-- end of evaluation -->\n\nThe end.\n"
    assert path.read_text() == expected
    path.write_text("# Package\n\n<!-- evaluation summary -->\n<!-- end of evaluation summary -->\n")
    write_section(path, "| all |\n", "| short |\n")
    assert "-->\n| short |\n<!--" in path.read_text()
    with pytest.raises(CommandError, match="has no place for the tables"):
        write_section(path, "| all |\n")


def test_marks_inside_a_sentence_are_no_place_for_tables(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    told = "\nTables come between `<!-- evaluation -->` and `<!-- end of evaluation -->`.\n"
    path.write_text("<!-- evaluation summary -->\n<!-- end of evaluation summary -->\n" + told)
    write_section(path, "| all |\n", "| short |\n")
    assert path.read_text() == "<!-- evaluation summary -->\n| short |\n<!-- end of evaluation summary -->\n" + told


def test_a_file_without_a_place_for_the_tables_is_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Model\n")
    output = tmp_path / "output"
    arguments = [
        "evaluate",
        "world",
        "--checkpoint",
        "constant_velocity",
        "--output",
        str(output),
        "--write",
        str(path),
    ]
    result = ODV.invoke(app, arguments)
    assert result.exit_code == 1
    assert "has no place for the tables; write <!-- evaluation -->" in result.output
    assert path.read_text() == "# Model\n"
    assert not list(output.iterdir())
