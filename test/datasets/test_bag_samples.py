"""Training samples from bags: the driver's own motion as the future."""

from pathlib import Path

import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.core.geometry import Array, invert, yaw_of
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds, time
from opendrivevla_ros.datasets.bag_samples import bag_samples
from opendrivevla_ros.datasets.bag_topics import find_input_topics
from opendrivevla_ros.datasets.bags import RIG_FILE, BagError, BagReader, BagWriter
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.world_bag import write_world_bag
from opendrivevla_ros.datasets.world_samples import START_NS
from opendrivevla_ros.sensing.calibration import load_rig
from opendrivevla_ros.world.expert import STEP_S, expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.simulation import World

SIZE = (80, 44)
SECONDS = 5.0
FAMILY, SEED = "bend", 0


@pytest.fixture(scope="module")
def street_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("street") / "bag"
    write_world_bag(path, family=FAMILY, seed=SEED, duration_s=SECONDS, image_size=(80, 45))
    return path


def read(path: Path) -> list[DrivingSample]:
    with BagReader(path) as bag:
        return list(bag_samples(bag, find_input_topics(bag), load_rig(path / RIG_FILE), image_size=SIZE))


def driven_poses() -> list[Array]:
    """base_link at every step of the drive in the bag."""
    world = World(make_scenario(FAMILY, SEED))
    poses = [world.ego.base_to_world]
    for _ in range(round(SECONDS / STEP_S)):
        world.step(STEP_S, expert_command(world))
        poses.append(world.ego.base_to_world)
    return poses


def rewritten(source: Path, target: Path, keep) -> Path:
    """A copy of a bag with the messages that `keep` gives for (input, message, stamp), None to drop one."""
    with BagReader(source) as bag, BagWriter(target) as writer:
        for entry in bag.messages():
            message = keep(entry.topic.removeprefix("/vla_node/input/"), deserialize(entry.data, entry.type))
            if message is not None:
                writer.write(entry.topic, message, entry.stamp_ns)
    (target / RIG_FILE).write_bytes((source / RIG_FILE).read_bytes())
    return target


def test_samples_come_twice_a_second_with_the_motion_that_followed(street_bag: Path) -> None:
    samples = read(street_bag)
    assert 8 <= len(samples) <= 10
    assert [sample.index for sample in samples] == list(range(len(samples)))
    poses = driven_poses()
    for sample in samples:
        start = (sample.observation.stamp_ns - START_NS) / 1e9
        for step, known in enumerate(sample.future_mask):
            ahead = start + 0.5 * (step + 1)
            assert known == (ahead <= SECONDS + 0.06)
            if ahead <= SECONDS:
                pose = invert(poses[round(start / STEP_S)]) @ poses[round(ahead / STEP_S)]
                np.testing.assert_allclose(sample.future[step], [*pose[:2, 3], yaw_of(pose)], atol=0.02)
        assert sample.agents is None
        assert sample.map_elements is None
        assert sample.observation.command.command is Command.KEEP_FORWARD


def test_without_recorded_commands_the_driven_turn_is_the_command(street_bag: Path, tmp_path: Path) -> None:
    def turned(name: str, message):
        if name == "command":
            return None
        if name == "odometry":  # a left bend of 10 m radius instead
            angle = 8.0 * (nanoseconds(message.header.stamp) - START_NS) / 1e9 / 10.0
            message.pose.pose.position.x, message.pose.pose.position.y = 10 * np.sin(angle), 10 * (1 - np.cos(angle))
            turn = message.pose.pose.orientation
            turn.x, turn.y, turn.z, turn.w = 0.0, 0.0, float(np.sin(angle / 2)), float(np.cos(angle / 2))
        return message

    samples = read(rewritten(street_bag, tmp_path / "bag", turned))
    assert samples[0].observation.command.command is Command.TURN_LEFT
    assert not samples[0].observation.command.is_default


def test_a_gap_in_the_odometry_ends_what_is_known_of_the_future(street_bag: Path, tmp_path: Path) -> None:
    def gapped(name: str, message):
        since = (nanoseconds(message.header.stamp) - START_NS) / 1e9 if name == "odometry" else 0.0
        return None if 2.5 < since < 3.3 else message

    samples = read(rewritten(street_bag, tmp_path / "bag", gapped))
    for sample in samples:
        start = (sample.observation.stamp_ns - START_NS) / 1e9
        end = 2.5 if start < 2.6 else SECONDS
        assert sample.future_mask.sum() == min(6, int((end + 0.06 - start) / 0.5))


def test_a_clock_that_jumps_begins_a_new_scene(street_bag: Path, tmp_path: Path) -> None:
    middle = START_NS + 2_500_000_000

    def jumped(name: str, message):
        stamp_ns = nanoseconds(message.header.stamp)
        if stamp_ns > middle:
            message.header.stamp = time(stamp_ns + 10**11)
        return message

    samples = read(rewritten(street_bag, tmp_path / "bag", jumped))
    starts = [sample.scene for sample in samples if sample.index == 0]
    assert len(starts) == len({sample.scene for sample in samples}) == 2


def test_a_bag_that_gives_no_sample_says_why(street_bag: Path, tmp_path: Path) -> None:
    def still(name: str, message):
        if name == "odometry":
            message.child_frame_id = "imu_link"
        return message

    path = rewritten(street_bag, tmp_path / "bag", still)
    with pytest.raises(
        BagError, match=r"bag gives no training sample \(\d+ refusals, first: odometry: the child frame"
    ):
        read(path)
