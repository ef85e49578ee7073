"""`odv demo`: the main job from one command, here with the baseline that costs nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from opendrivevla_ros.cli.main import app
from opendrivevla_ros.cli.replay import rig_of
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bag_topics import find_input_topics
from opendrivevla_ros.datasets.bags import BagReader

Odv = Callable[..., subprocess.CompletedProcess[str]]
INPUTS = ["/vla_node/input/odometry", "/vla_node/input/cam_back/image/compressed"]
ROAD = ("--family", "free_road", "--seed", "29")


@pytest.fixture(scope="module")
def drive(
    environment: dict[str, str], domain: int, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The output folder of a demo, and its run."""
    output = tmp_path_factory.mktemp("demo") / "output"
    arguments = ("--policy", "constant_velocity", *ROAD, "--seconds", "5", "--domain", str(domain))
    run = subprocess.run(
        [sys.executable, "-m", "opendrivevla_ros.cli.main", "demo", "--output", str(output), *arguments],
        env={**os.environ, **environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return output, run


Drive = tuple[Path, subprocess.CompletedProcess[str]]


def test_the_demo_drives_the_world_and_prints_how_it_went(drive: Drive) -> None:
    output, run = drive
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["policy"], summary["scenario"]) == ("constant_velocity", "free_road 29")
    assert (summary["outcome"], summary["collision"]) == ("still driving when the time was over", "")
    assert summary["drive_seconds"] == 5.0
    assert 0.2 < summary["route_completion"] < 0.8
    assert 8 <= summary["plans"] <= 11
    guard = summary["guard"]
    assert guard["armed"]
    assert guard["cycles"]["NOMINAL"] >= 20
    assert guard["sent"]["plans"] <= summary["plans"]
    assert summary["plans_followed"] <= sum(guard["sent"].values())  # the last may come after the end
    assert summary["topics"]["output/agents"]["count"] == summary["plans"]
    assert 0 < summary["topics"]["output/trajectory"]["p50_ms"] < 1000
    assert "this baseline sees no pictures" in summary["reasoning"][0].lower()
    for word in ("guard", "route completion", "collisions", "stamp to plan", "plans"):
        assert word in run.stdout


def test_the_demo_leaves_overviews_birds_eye_views_and_a_gif(drive: Drive) -> None:
    output, _ = drive
    names = {path.name for path in output.iterdir()}
    assert {f"{kind}_{number}.png" for kind in ("overview", "birds_eye") for number in (1, 2, 3)} <= names
    assert all(cv2.imread(str(output / name)) is not None for name in names if name.endswith(".png"))
    assert (output / "drive.gif").read_bytes()[:6] == b"GIF89a"


def test_the_demos_bag_holds_the_truth_and_can_be_replayed(drive: Drive, odv: Odv, tmp_path: Path) -> None:
    bag_path = drive[0] / "bag"
    with BagReader(bag_path) as bag:
        assert find_input_topics(bag).by_input["odometry"].count == 251
        assert bag.topics["/vla_node/input/cam_back/image/compressed"].count == 11
        assert bag.topics["/world_node/truth/agents"].count >= 45
        assert bag.topics["/world_node/truth/map_elements"].latched
        assert bag.duration_s < 10
        assert bag.warnings == []
        sent = [(entry.stamp_ns, deserialize(entry.data, entry.type)) for entry in bag.messages(INPUTS)]
        assert all(stamp_ns == nanoseconds(message.header.stamp) for stamp_ns, message in sent)
    assert rig_of(bag_path, None)["cam_front"].width == 448
    run = odv("replay", str(bag_path), "--policy", "constant_velocity", "--output", str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["plans"] == 11


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--policy", "nothing"), "vla_node cannot plan"),
        (("--policy", "constant_velocity", "--family", "moon"), "family is 'moon', but must be one of free_road"),
    ],
)
def test_a_demo_that_cannot_drive_is_one_sentence_and_exit_code_1(
    odv: Odv, domain: int, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    run = odv("demo", "--output", str(tmp_path), *arguments, "--seconds", "2", "--domain", str(domain))
    assert run.returncode == 1
    assert complaint in run.stderr
    assert run.stderr.count("\n") == 1
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("command", ["demo", "replay", "play", "doctor", "checkpoint"])
def test_every_subcommand_has_help(command: str) -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert command in result.output
