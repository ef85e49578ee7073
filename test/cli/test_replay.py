"""`odv replay`: the same bag, weights and seed give the same bytes; bad bags are one sentence."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opendrivevla_ros.cli.replay import rig_of, run_replay
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bags import BagReader, BagWriter
from opendrivevla_ros.policies.registry import load_policy

Odv = Callable[..., subprocess.CompletedProcess[str]]
IMAGE_SETS = 26  # 2.5 s at 10 Hz, both ends
STATUS = "/vla_node/output/plan_status"


def replay(bag: Path, output: Path, policy: str = "constant_velocity", **options: Any) -> dict[str, Any]:
    output.mkdir(exist_ok=True)
    with BagReader(bag) as reader:
        return run_replay(reader, load_policy(policy, seed=0), rig_of(bag, None), output, **options)


def recorded(
    output: Path, *, without: tuple[str, ...] = ("/vla_node/output/plan_status",)
) -> list[tuple[str, int, bytes]]:
    """Topic, time and bytes of everything in the bag of plans but the times that planning took."""
    with BagReader(output / "plans") as bag:
        return [(m.topic, m.stamp_ns, m.data) for m in bag.messages(set(bag.topics) - set(without))]


def changed_copy(bag: Path, path: Path, keep: Callable[[str, int, Any], Any]) -> Path:
    """A copy of a bag in which each message is what `keep(topic, index on the topic, message)` returns, or gone."""
    counts: dict[str, int] = {}
    with BagReader(bag) as reader, BagWriter(path) as writer:
        for entry in reader.messages():
            index = counts[entry.topic] = counts.get(entry.topic, -1) + 1
            message = keep(entry.topic, index, deserialize(entry.data, entry.type))
            if message is not None:
                writer.write(entry.topic, message, entry.stamp_ns)
    shutil.copy(bag / "rig.yaml", path)
    return path


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Threads that wait for a core that others use make a small model many times slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_set_of_pictures_is_planned_from_and_the_same_bag_gives_the_same_bytes(
    street_bag: Path, tmp_path: Path
) -> None:
    first = replay(street_bag, tmp_path / "first", rate=0.0)
    replay(street_bag, tmp_path / "second", rate=0.0)
    assert first["plans"] == IMAGE_SETS
    assert first["refusals"] == {}
    assert recorded(tmp_path / "first") == recorded(tmp_path / "second")


@pytest.mark.usefixtures("one_torch_thread")
def test_random_weights_of_one_seed_give_the_same_bytes(street_bag: Path, tmp_path: Path) -> None:
    summary = replay(street_bag, tmp_path / "first", "opendrivevla-small-random", rate=0.5)
    replay(street_bag, tmp_path / "second", "opendrivevla-small-random", rate=0.5)
    assert summary["trained"] is False
    assert summary["plans"] + sum(summary["refusals"].values()) == 2
    assert summary["plans"] > 0
    assert recorded(tmp_path / "first") == recorded(tmp_path / "second")


def test_plans_carry_the_stamp_of_the_anchor_picture_and_come_with_everything(
    street_bag: Path, tmp_path: Path
) -> None:
    replay(street_bag, tmp_path, rate=2.0)
    with BagReader(street_bag) as bag:
        topic = "/vla_node/input/cam_front/image/compressed"
        anchors = {nanoseconds(deserialize(m.data, m.type).header.stamp) for m in bag.messages([topic])}
    with BagReader(tmp_path / "plans") as bag:
        plans = [deserialize(m.data, m.type) for m in bag.messages(["/vla_node/output/trajectory"])]
        counts = {topic.name: topic.count for topic in bag.topics.values()}
    stamps = [nanoseconds(plan.header.stamp) for plan in plans]
    assert set(stamps) <= anchors
    assert np.diff(stamps).min() > 0.45e9
    assert {plan.header.frame_id for plan in plans} == {"odom"}
    names = ("path", "reasoning", "agents", "map_elements", "plan_status")
    assert counts == {f"/vla_node/output/{name}": 6 for name in ("trajectory", *names)} | {
        "/vla_node/debug/markers": 6
    }


def test_a_lost_camera_is_refused_by_name_and_plans_return_with_it(street_bag: Path, tmp_path: Path) -> None:
    def without_four(topic: str, index: int, message: Any) -> Any:
        return None if topic.endswith("cam_back/image/compressed") and 10 <= index < 14 else message

    bag = changed_copy(street_bag, tmp_path / "bag", without_four)
    summary = replay(bag, tmp_path / "out", rate=0.0)
    assert summary["plans"] == IMAGE_SETS - 4
    assert summary["refusals"] == {"missing_camera": 4}
    with BagReader(tmp_path / "out" / "plans") as reader:
        statuses = [deserialize(m.data, m.type) for m in reader.messages([STATUS])]
    assert all("cam_back" in status.reason for status in statuses if status.result)


def test_a_truncated_picture_is_refused_and_the_next_one_planned_from(street_bag: Path, tmp_path: Path) -> None:
    def truncate_one(topic: str, index: int, message: Any) -> Any:
        if topic.endswith("cam_front_left/image/compressed") and index == 12:
            message.data = message.data[: len(message.data) // 3]
        return message

    summary = replay(changed_copy(street_bag, tmp_path / "bag", truncate_one), tmp_path / "out", rate=0.0)
    assert summary["refusals"] == {"bad_image": 1}
    assert summary["plans"] == IMAGE_SETS - 1


def test_a_recording_that_was_cut_off_is_planned_from_up_to_the_cut(street_bag: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.mkdir()
    data = (street_bag / "bag.mcap").read_bytes()
    (cut / "bag.mcap").write_bytes(data[: len(data) * 7 // 10])
    shutil.copy(street_bag / "rig.yaml", cut)
    summary = replay(cut, tmp_path / "out", rate=0.0)
    assert IMAGE_SETS / 4 < summary["plans"] < IMAGE_SETS
    assert "is cut off or damaged" in summary["warnings"][0]


def test_the_command_prints_what_came_and_writes_a_summary(street_bag: Path, tmp_path: Path, odv: Odv) -> None:
    run = odv("replay", str(street_bag), "--policy", "constant_velocity", "--output", str(tmp_path / "out"))
    assert run.returncode == 0, run.stderr
    assert "plans" in run.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["plans"] == 6
    assert summary["stage_times"]["whole plan"]["count"] == 6


def test_a_bag_without_plans_is_one_sentence_and_exit_code_1(street_bag: Path, tmp_path: Path, odv: Odv) -> None:
    bag = changed_copy(street_bag, tmp_path / "bag", lambda t, i, m: None if "odometry" in t and i != 1 else m)
    run = odv("replay", str(bag), "--policy", "constant_velocity", "--output", str(tmp_path / "out"))
    assert run.returncode == 1
    assert "no plan came from" in run.stderr
    assert "odometry" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "nowhere does not exist; give a bag's folder"),
        (["{bag}", "--policy", "nothing"], "'nothing' is neither a checkpoint folder nor a policy name"),
        (["{bag}", "--rig", "nothing.yaml"], "nothing.yaml"),
        (["{bag}", "--topics", "nothing.yaml"], "topic map nothing.yaml cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(
    street_bag: Path, odv: Odv, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    named = [argument.format(bag=street_bag) for argument in arguments]
    run = odv("replay", "--policy", "constant_velocity", "--output", str(tmp_path), *named)
    assert run.returncode == 1
    assert complaint in run.stderr
    assert run.stderr.count("\n") == 1


WITHOUT_ROS = """
import sys
from pathlib import Path
from opendrivevla_ros.cli.stand_in_messages import install_stand_ins
install_stand_ins()
from opendrivevla_ros.cli.replay import rig_of, run_replay
from opendrivevla_ros.datasets.bags import BagReader
from opendrivevla_ros.policies.registry import load_policy
bag = Path(sys.argv[1])
run_replay(BagReader(bag), load_policy("constant_velocity"), rig_of(bag, None), Path(sys.argv[2]), rate=2.0)
assert not [name for name in sys.modules if name.startswith("rclpy")]
"""


def test_replay_without_ros_writes_the_bytes_of_replay_with_ros(street_bag: Path, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    arguments = [sys.executable, "-c", WITHOUT_ROS, str(street_bag), str(tmp_path / "without")]
    subprocess.run(arguments, check=True, timeout=60, env=dict(os.environ))
    replay(street_bag, tmp_path / "with", rate=2.0)
    assert recorded(tmp_path / "without") == recorded(tmp_path / "with")
