"""Bags: round trips, and the errors of those that are cut off, empty, or not bags."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from opendrivevla_ros.datasets.bag_messages import deserialize, header, message
from opendrivevla_ros.datasets.bags import BagError, BagReader, BagWriter

STORAGES = ("mcap", "sqlite3")
SUFFIX = {"mcap": ".mcap", "sqlite3": ".db3"}
IMAGE, COMMAND = "/cam_front/image/compressed", "/command"
MESSAGES = 120


def write_bag(path: Path, storage: str) -> Path:
    """Pictures of 40 kB and commands by turns, so that an MCAP file has several chunks."""
    random = np.random.default_rng(0)
    with BagWriter(path, storage) as bag:
        bag.add_topic(COMMAND, "opendrivevla_ros/msg/DrivingCommand", latched=True)
        for index in range(MESSAGES):
            data = random.integers(0, 255, 40_000, dtype=np.uint8)
            picture = message("sensor_msgs/msg/CompressedImage", header=header(index * 10**8, "cam_front"), data=data)
            bag.write(IMAGE, picture, index * 10**8)
            bag.write(COMMAND, message("opendrivevla_ros/msg/DrivingCommand", text=str(index)), index * 10**8 + 5)
    return path


def storage_file(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.suffix in SUFFIX.values())


def cut(bag: Path, fraction: float) -> None:
    """Leaves the first part of the bag's storage file, and no metadata: what a crash of the recorder leaves."""
    path = storage_file(bag)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    (bag / "metadata.yaml").unlink()


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_gives_back_what_was_written(tmp_path: Path, storage: str) -> None:
    with BagReader(write_bag(tmp_path / "bag", storage)) as bag:
        assert {name: topic.count for name, topic in bag.topics.items()} == {IMAGE: MESSAGES, COMMAND: MESSAGES}
        assert bag.topics[COMMAND].latched
        assert not bag.topics[IMAGE].latched
        assert (bag.start_ns, bag.end_ns) == (0, (MESSAGES - 1) * 10**8 + 5)
        texts = [deserialize(entry.data, entry.type).text for entry in bag.messages([COMMAND])]
        assert texts == [str(index) for index in range(MESSAGES)]
        assert len(list(bag.messages(start_ns=60 * 10**8))) == 2 * (MESSAGES - 60)
        assert bag.warnings == []


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_opens_by_its_file_too(tmp_path: Path, storage: str) -> None:
    with BagReader(storage_file(write_bag(tmp_path / "bag", storage))) as bag:
        assert len(list(bag.messages())) == 2 * MESSAGES


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_was_cut_off_is_read_up_to_the_cut_with_a_warning(tmp_path: Path, storage: str) -> None:
    whole = write_bag(tmp_path / "bag", storage)
    with BagReader(whole) as bag:
        expected = list(bag.messages())
    cut(whole, 0.6)
    with BagReader(whole) as bag:
        entries = list(bag.messages())
    assert 2 * MESSAGES * 0.3 < len(entries) < 2 * MESSAGES * 0.6
    assert entries == expected[: len(entries)]
    assert len(bag.warnings) == 1
    assert "is cut off" in bag.warnings[0]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_cut_is_found_beside_intact_metadata(tmp_path: Path, storage: str) -> None:
    bag_path = write_bag(tmp_path / "bag", storage)
    metadata = (bag_path / "metadata.yaml").read_text()
    cut(bag_path, 0.6)
    (bag_path / "metadata.yaml").write_text(metadata)
    with BagReader(bag_path) as bag:
        assert list(bag.messages())
        assert bag.warnings


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("fraction", [0.0, 0.0001, 0.001])
def test_a_bag_cut_off_before_its_first_message_is_refused_by_name(
    tmp_path: Path, storage: str, fraction: float
) -> None:
    bag_path = write_bag(tmp_path / "bag", storage)
    cut(bag_path, fraction)
    with pytest.raises(BagError, match=r"bag holds no messages that can be read .*record it again"):
        BagReader(bag_path)


@pytest.mark.parametrize("storage", STORAGES)
def test_damage_in_the_middle_is_left_out_with_a_warning(tmp_path: Path, storage: str) -> None:
    bag_path = write_bag(tmp_path / "bag", storage)
    path = storage_file(bag_path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100_000] = bytes(100_000)
    path.write_bytes(bytes(data))
    with BagReader(bag_path) as bag:
        count = len(list(bag.messages()))
    assert 0 < count < 2 * MESSAGES
    assert "damaged" in bag.warnings[0]


@pytest.mark.parametrize("storage", STORAGES)
def test_an_empty_bag_is_refused(tmp_path: Path, storage: str) -> None:
    with BagWriter(tmp_path / "bag", storage) as bag:
        bag.add_topic("/odometry", "nav_msgs/msg/Odometry")
    with pytest.raises(BagError, match="bag holds no messages; record it again"):
        BagReader(tmp_path / "bag")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="nowhere does not exist; give a bag's folder"):
        BagReader(tmp_path / "nowhere")


def test_a_folder_without_storage_is_not_a_bag(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"is not a bag: no \.mcap or \.db3 file is there"):
        BagReader(tmp_path)


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"letter{suffix}"
    path.write_text("Dear reader, " * 500)
    with pytest.raises(BagError, match=r"holds no messages that can be read \(letter.*is not a"):
        BagReader(path)


def test_a_ros_1_bag_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(BagError, match="rosbags-convert --src"):
        BagReader(tmp_path / "old.bag")


def test_writing_replaces_a_bag_and_nothing_else(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", "sqlite3")
    write_bag(tmp_path / "bag", "mcap")
    assert storage_file(tmp_path / "bag").suffix == ".mcap"
    (tmp_path / "bag" / "notes.txt").write_text("mine")
    with pytest.raises(BagError, match="is there and is not a bag"):
        BagWriter(tmp_path / "bag")
    assert (tmp_path / "bag" / "notes.txt").exists()


def test_files_of_a_split_recording_are_read_one_after_another(tmp_path: Path) -> None:
    split = tmp_path / "split"
    split.mkdir()
    for index, start in ((2, 0), (10, 10**12)):
        part = tmp_path / f"part{index}"
        with BagWriter(part) as bag:
            bag.write(COMMAND, message("opendrivevla_ros/msg/DrivingCommand", text=str(index)), start)
        shutil.copy(storage_file(part), split / f"split_{index}.mcap")
    with BagReader(split) as bag:
        assert [deserialize(entry.data, entry.type).text for entry in bag.messages()] == ["2", "10"]
        assert bag.topics[COMMAND].count == 2
        assert bag.duration_s == 1000.0
