"""Reading and writing ROS 2 bags (MCAP and sqlite3) without a ROS install."""

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from opendrivevla_ros.datasets.bag_messages import serialize, typestore
from opendrivevla_ros.datasets.bag_storage import BagMessage, BagTopic, CutMcap, CutSqlite, Storage, WholeBag

STORAGE_SUFFIXES = (".mcap", ".db3")
RIG_FILE = "rig.yaml"  # a calibration file of this name in a bag's folder goes with the bag
BAG_FILES = ("metadata.yaml", RIG_FILE)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    QosTime(0, 0),
    QosTime(0, 0),
    QosLiveliness.AUTOMATIC,
    QosTime(0, 0),
    False,
)


class BagError(ValueError):
    """A bag that cannot be used: one sentence that names the file, what is wrong, and the remedy."""


class BagReader:
    """A bag, given as its folder or as one `.mcap` or `.db3` file; a context manager.

    A recording that was cut off is read up to the damage, and `warnings` says so: check it again after `messages`.
    topics: by name, those without messages left out. start_ns, end_ns: stamps of the first and the last message.
    Raises BagError for a path that is no bag, a bag without messages, and one of which nothing can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        self._storages = self._open()
        self.topics: dict[str, BagTopic] = {}
        for storage in self._storages:
            for name, topic in storage.topics.items():
                count = topic.count + (self.topics[name].count if name in self.topics else 0)
                if count:
                    self.topics[name] = BagTopic(name, topic.type, count, topic.latched)
        if not self.topics:
            self.close()
            causes = f" that can be read ({'; '.join(self.warnings)})" if self.warnings else ""
            raise BagError(f"{self.path} holds no messages{causes}; record it again")
        filled = [storage for storage in self._storages if any(topic.count for topic in storage.topics.values())]
        self.start_ns = min(storage.start_ns for storage in filled)
        self.end_ns = max(storage.end_ns for storage in filled)

    def __enter__(self) -> "BagReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def duration_s(self) -> float:
        """From the first to the last message, seconds."""
        return (self.end_ns - self.start_ns) / 1e9

    def messages(self, topics: Collection[str] | None = None, start_ns: int | None = None) -> Iterator[BagMessage]:
        """The messages of `topics` (all when None) received at `start_ns` or later, in the order of recording.

        What cannot be read is left out, with a warning.
        """
        names = set(self.topics if topics is None else topics)
        for storage in self._storages:
            count = 0
            try:
                for message in storage.messages(names, start_ns):
                    count += 1
                    yield message
            except Exception as error:  # damaged bytes make the readers raise nearly anything
                self._warn(f"{self.path} is damaged after {count} messages ({error}); the rest is left out")
                continue
            expected = sum(topic.count for name, topic in storage.topics.items() if name in names)
            if start_ns is None and count < expected and not self.warnings:
                self._warn(f"{self.path} is damaged: {expected - count} of {expected} messages cannot be read")

    def close(self) -> None:
        """Closes its files."""
        while self._storages:
            self._storages.pop().close()

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def _open(self) -> list[Storage]:
        path = self.path
        if not path.exists():
            raise BagError(f"{path} does not exist; give a bag's folder or its .mcap or .db3 file")
        if path.suffix == ".bag":
            raise BagError(f"{path} is a ROS 1 bag; convert it with `rosbags-convert --src {path} --dst NEW_FOLDER`")
        files = sorted(path.iterdir(), key=lambda file: (len(file.name), file.name)) if path.is_dir() else [path]
        files = [file for file in files if file.suffix in STORAGE_SUFFIXES]
        if not files and not (path / "metadata.yaml").is_file():
            raise BagError(f"{path} is not a bag: no .mcap or .db3 file is there; give a bag's folder or file")
        if not path.is_dir() or (path / "metadata.yaml").is_file():
            try:
                return [WholeBag(path)]
            except Exception:  # a cut-off file fails in many ways; what can be saved from it is tried below
                pass
        storages: list[Storage] = []
        for file in files:
            storages.extend(self._open_file(file))
        return storages

    def _open_file(self, file: Path) -> list[Storage]:
        """A file of the bag, whole or cut off; nothing, and a warning, when nothing of it can be read."""
        try:
            return [WholeBag(file)]
        except Exception:  # as above
            pass
        try:
            storage = CutMcap(file) if file.suffix == ".mcap" else CutSqlite(file)
        except Exception as error:  # as above
            self._warn(f"{file.name}: {error}")
            return []
        count = sum(topic.count for topic in storage.topics.values())
        self._warn(f"{file.name} is cut off or damaged; about {count} messages before that are used")
        return [storage]


class BagWriter:
    """Writes a new bag folder; a context manager. Topics are added by their first message.

    storage: "mcap" or "sqlite3". A bag that is already at `path` is replaced; anything else there is a BagError.
    """

    def __init__(self, path: str | Path, storage: str = "mcap") -> None:
        self.path = Path(path)
        if self.path.exists():
            contents = list(self.path.iterdir()) if self.path.is_dir() else [self.path]
            if any(file.name not in BAG_FILES and file.suffix not in STORAGE_SUFFIXES for file in contents):
                raise BagError(f"{self.path} is there and is not a bag; choose another name for the bag to write")
            shutil.rmtree(self.path)
        self._writer = Writer(self.path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        self._connections: dict[str, Any] = {}
        self._writer.open()

    def __enter__(self) -> "BagWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._writer.__exit__(*exception)

    def add_topic(self, topic: str, type_name: str, *, latched: bool = False) -> None:
        """Declares a topic; needed only for latched topics and for those that may stay empty."""
        profiles = [LATCHED] if latched else []
        self._connections[topic] = self._writer.add_connection(
            topic, type_name, typestore=typestore(), offered_qos_profiles=profiles
        )

    def write(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Writes a message made by `bag_messages.message` as received at `stamp_ns`."""
        self.write_bytes(topic, message.__msgtype__, serialize(message), stamp_ns)

    def write_bytes(self, topic: str, type_name: str, data: bytes, stamp_ns: int) -> None:
        """Writes the CDR bytes of a message of a type that `typestore` knows."""
        if topic not in self._connections:
            self.add_topic(topic, type_name)
        self._writer.write(self._connections[topic], stamp_ns, data)
