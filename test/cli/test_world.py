"""`odv world`: a data set that loads, a picture of one moment, and one sentence for what cannot be done."""

import errno
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from opendrivevla_ros.cli.world import app
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes
from opendrivevla_ros.world.families import FAMILIES

run = CliRunner().invoke
SMALL = ["--width", "96", "--seconds", "1"]


def refused(arguments: list[str], sentence: str) -> None:
    result = run(app, arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_export_holds_the_families_and_splits_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "set"
    families = ["--family", "bend", "--family", "cut_in"]
    splits = ["--split", "train", "--split", "test"]
    result = run(app, ["export", "--root", str(root), "--scenes", "3", *families, *splits, *SMALL])
    assert result.exit_code == 0, result.output
    assert "6 scenes, 18 samples" in result.output.replace("\n", " ")
    names = {}
    for split in ("world_train", "world_test"):
        scenes = NuScenesScenes(root, "v1.0-world", image_size=(96, 54), split=split)
        assert all(len(scene) == 3 for scene in scenes)
        names[split] = [row["description"] for row in scenes.tables.all("scene") if row["name"] in scenes.names]
    assert names == {
        "world_train": ["bend 0", "cut_in 0", "bend 1"],
        "world_test": ["bend 9", "cut_in 9", "bend 19"],
    }


@pytest.mark.parametrize("name", ["junction_left", FAMILIES[-1]])
def test_a_moment_is_drawn_with_its_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "moment.png"
    result = run(app, ["draw", name, "9", "--output", str(path), "--at", "1"])
    assert result.exit_code == 0, result.output
    assert "road users in sight" in result.output
    picture = cv2.imread(str(path))
    assert picture.shape[1] > 1500
    assert picture.std() > 20


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path) -> None:
    here = ["export", "--root", str(tmp_path)]
    refused([*here, *SMALL], f"{tmp_path} is there already; remove it or choose another name")
    refused(
        ["export", "--root", str(tmp_path / "set"), "--family", "moon"], "no scenario family 'moon'; choose one of"
    )
    refused(["draw", "moon", "1"], "no scenario family 'moon'; choose one of free_road")
    refused(["draw", "bend", "1", "--at", "300"], "after its start, before 300.0 s; give a lower --at")
    refused(["draw", "bend", "1", "--at", "inf"], "--at inf is longer than any drive; give at most 600 seconds")
    refused([*here[:-1], str(tmp_path / "set"), "--seconds", "inf"], "--seconds inf is longer than any drive")
    refused(["draw", "bend", "1", "-o", str(tmp_path / "a.gif")], "is no name of a PNG; give one that ends in .png")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_of_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".jpg":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    refused(["export", "--root", str(tmp_path / "set"), *SMALL], "(No space left on device); free space or choose")
    assert list(tmp_path.iterdir()) == []
