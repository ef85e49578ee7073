"""`odv evaluate nuscenes`: one command for all tables, which can be stopped, and says what is not in them."""

import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation.nuscenes_sets import SPLIT, change_table, export, keep_first_sample
from training.blind_samples import blind_samples
from typer.testing import CliRunner

from opendrivevla_ros.cli.main import app
from opendrivevla_ros.evaluation.moments import read_moments
from opendrivevla_ros.training.ego_state import train_ego_state

ODV = CliRunner(env={"COLUMNS": "200"})
COMMAND = [sys.executable, "-m", "opendrivevla_ros.cli.main"]
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray listens on the loopback only where it can have no other machine
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # or else it writes one to the home folder
    "OMP_NUM_THREADS": "1",
}
CLUSTER = """
import sys, ray
started = ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=80 * 2**20,
                   log_to_driver=False, logging_level="error", _temp_dir=sys.argv[1])
print(started.address_info["gcs_address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenes = [("cut_in", 9), ("junction_left", 19), ("bend", 9), ("free_road", 9)]
    return export(tmp_path_factory.mktemp("nuscenes") / "set", tuple(scenes))


def arguments(root: Path, output: Path, *more: str) -> list[str]:
    given = ["evaluate", "nuscenes", "--root", str(root), "--split", SPLIT, "--output", str(output)]
    policy = [] if "--policy" in more else ["--policy", "constant_velocity"]
    return [*given, *policy, "--processes", "1", *more]


def evaluated(root: Path, output: Path, *more: str) -> dict[str, Any]:
    done = ODV.invoke(app, arguments(root, output, *more))
    assert done.exit_code == 0, done.output
    return json.loads((output / "results.json").read_text())["nuscenes"]


@pytest.fixture(scope="module")
def results(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of one run without a break."""
    return evaluated(root, tmp_path_factory.mktemp("nuscenes") / "whole")


def test_the_tables_hold_the_policy_and_both_blind_baselines(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "blind"
    train_ego_state(blind_samples(200), folder, source="train", steps=20)
    output = tmp_path / "out"
    figures = evaluated(root, output, "--policy", str(folder))
    assert list(figures["policies"]) == ["blind", "constant_velocity", "ego_state"]
    assert (figures["policy"], figures["scenes"], figures["samples"], figures["complete"]) == ("blind", 4, 28, True)
    tables = (output / "results.md").read_text()
    for test in figures["tests"].values():
        assert f"Collisions, {test}." in tables
    for name in figures["policies"]:
        assert tables.count(f"| {name} |") == 5, name
    assert len(read_moments(output / "nuscenes")) == 4
    again = ODV.invoke(app, arguments(root, output, "--policy", str(folder)))
    assert "nuscenes: kept from" in again.output


def test_two_processes_give_the_figures_of_one(results: dict[str, Any], root: Path, tmp_path: Path) -> None:
    assert evaluated(root, tmp_path, "--processes", "2") == results


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(handle: int, timeout_s: float) -> bool:
    """Waits for a process; handle: of `os.pidfd_open`."""
    return bool(select.select([handle], [], [], timeout_s)[0])


def test_killed_and_started_again_it_goes_on_to_the_same_figures(
    results: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [*COMMAND, *arguments(root, tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    with process.stdout:
        first = process.stdout.readline()
        workers = [os.pidfd_open(child) for child in children_of(process.pid)]
        process.send_signal(signal.SIGKILL)
    process.wait()
    assert "scene-2001: 1 of 4 scenes, about" in first
    assert workers
    for worker in workers:
        assert ended(worker, 60.0)  # nobody goes on in the background
        os.close(worker)
    kept = sorted(path.parent.name for path in tmp_path.glob("scenes/*/record.json"))
    assert 1 <= len(kept) < 4
    assert not (tmp_path / "results.json").exists()
    before = (tmp_path / "scenes" / "scene-2001" / "record.json").stat()
    done = ODV.invoke(app, arguments(root, tmp_path))
    assert done.exit_code == 0, done.output
    assert "scene-2001:" not in done.output
    assert "scene-2004: 4 of 4 scenes" in done.output
    after = (tmp_path / "scenes" / "scene-2001" / "record.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert json.loads((tmp_path / "results.json").read_text())["nuscenes"] == results


def test_a_scene_of_one_frame_is_named_and_what_is_mended_is_evaluated(
    results: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    broken, output = tmp_path / "set", tmp_path / "out"
    shutil.copytree(root, broken)
    whole = {table: (broken / "v1.0-world" / f"{table}.json").read_bytes() for table in TABLES}
    keep_first_sample(broken, "scene-2002")
    splits = broken / "v1.0-world" / "splits.json"
    splits.write_text(splits.read_text().replace('"scene-2001"', '"scene-2001", "scene-9999"'))
    figures = evaluated(broken, output)
    assert (figures["complete"], figures["scenes"], figures["samples"]) == (False, 3, 21)
    assert "has scene-2002 with 1 sample: too few for motion and future" in figures["problems"]["scenes"]["scene-2002"]
    assert len(figures["problems"]["missing"]) == 1
    tables = (output / "results.md").read_text()
    assert "Not the whole split world_test" in tables
    assert "1 samples of the split are missing" in tables
    assert "1 scenes of the split are not in the data set: scene-9999" in tables
    for table, content in whole.items():
        (broken / "v1.0-world" / f"{table}.json").write_bytes(content)
    done = ODV.invoke(app, arguments(broken, output))
    assert done.exit_code == 0, done.output
    assert "scene-2002: 4 of 4 scenes" in done.output
    assert json.loads((output / "results.json").read_text())["nuscenes"] == results


TABLES = ("splits", "scene", "sample", "sample_data", "sample_annotation")


def test_records_of_other_samples_are_named_and_left_out(results: dict[str, Any], root: Path, tmp_path: Path) -> None:
    evaluated(root, tmp_path)
    scenes = tmp_path / "scenes"
    shutil.copytree(scenes / "scene-2001", scenes / "copy")
    path = scenes / "copy" / "record.json"
    content = json.loads(path.read_text())
    content["samples"] = content["samples"][:2]
    content["samples"][1]["token"] = "nobody's"
    path.write_text(json.dumps(content))
    (tmp_path / "nuscenes.json").unlink()
    figures = evaluated(root, tmp_path)
    assert (figures["complete"], figures["samples"]) == (False, 27)
    assert figures["problems"]["unknown"] == ["nobody's"]
    assert figures["problems"]["duplicated"] == [content["samples"][0]["token"]]


def test_records_of_another_policy_version_or_data_set_are_refused(root: Path, tmp_path: Path) -> None:
    evaluated(root, tmp_path)

    def refused(sentence: str, root: Path = root, *more: str) -> None:
        done = ODV.invoke(app, arguments(root, tmp_path, *more))
        assert done.exit_code == 1
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1

    other = tmp_path / "other"
    train_ego_state(blind_samples(50), other, source="train", steps=2)
    weights = "record.json is of another evaluation: weights {'constant_velocity': '', 'ego_state': "
    refused(weights, root, "--beside", str(other))
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    change_table(moved, "sample_annotation", lambda rows: [{**rows[0], "size": [9.0, 9.0, 9.0]}, *rows[1:]])
    refused("scene-2001/record.json is of another evaluation: data '", moved)
    path = tmp_path / "scenes" / "scene-2003" / "record.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "settings": {**content["settings"], "version": "0.0.9"}}))
    (tmp_path / "nuscenes.json").unlink()
    refused(f"{path} is of another evaluation: version '0.0.9' and not")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--root", "{tmp}"], "{tmp} has no folder of tables with a scene.json; --root is what holds v1.0-trainval/"),
        (["--split", "val"], "has no scene of the split 'val'"),
        (["--split", "nowhere"], "has no split 'nowhere'; it and nuScenes have"),
        (["--policy", "nowhere"], "'nowhere' is neither a checkpoint folder nor a policy name"),
        (["--output", "{tmp}/file"], "cannot write to {tmp}/file: File exists; choose another --output"),
        (
            ["--ray", "127.0.0.1:1"],
            "there is no Ray cluster at 127.0.0.1:1 ([Errno 111] Connection refused); start one",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(root: Path, tmp_path: Path, more: list[str], sentence: str) -> None:
    (tmp_path / "file").write_text("")
    given = [argument.format(tmp=tmp_path) for argument in more]
    done = ODV.invoke(app, arguments(root, tmp_path / "out", *given))
    assert done.exit_code == 1
    assert sentence.format(tmp=tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "results.json").exists()


def test_without_ray_one_sentence_says_so(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = ODV.invoke(app, arguments(root, tmp_path, "--ray", "127.0.0.1:1"))
    assert done.exit_code == 1
    assert done.stderr == "error: --ray needs Ray, which is not installed; pip install 'ray>=2.40'\n"


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of this machine, on the loopback."""
    pytest.importorskip("ray", reason="--ray was not run: Ray is optional, and there is none for this Python")
    folder = tempfile.mkdtemp(prefix="ray")  # a short name: paths of sockets are limited
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **LOOPBACK},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_ray_cluster_gives_the_same_figures(
    odv: Callable[..., subprocess.CompletedProcess[str]],
    cluster: str,
    results: dict[str, Any],
    root: Path,
    tmp_path: Path,
) -> None:
    assert cluster.startswith("127.0.0.1:")
    done = odv(*arguments(root, tmp_path, "--ray", cluster), **LOOPBACK)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 scenes, about 0:00:00 left" in done.stdout
    assert json.loads((tmp_path / "results.json").read_text())["nuscenes"] == results
    gpu = odv(*arguments(root, tmp_path / "gpu", "--ray", cluster, "--device", "cuda"), **LOOPBACK)
    assert gpu.returncode == 1
    assert f"the Ray cluster at {cluster} has no GPU; add a node with one, or use --device cpu" in gpu.stderr
