"""The storage of a bag: whole files through rosbags, and files of recordings that were cut off, up to the damage."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rosbags.interfaces import Qos, QosDurability
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.metadata import parse_qos
from rosbags.rosbag2.storage_mcap import McapReader

MCAP_MAGIC = b"\x89MCAP0\r\n"
MCAP_RECORD_PREFIX_BYTES = 9  # opcode, then the length of what follows as a little-endian uint64


class BagMessage(NamedTuple):
    """One recorded message. stamp_ns: when it was received. data: its CDR bytes."""

    topic: str
    type: str
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class BagTopic:
    """A recorded topic. latched: it was offered transient local, so that late subscribers get its last message."""

    name: str
    type: str
    count: int
    latched: bool = False


class Storage(Protocol):
    """What a bag, or one file of it, gives. `messages` raises whatever its damage makes the reader raise."""

    topics: dict[str, BagTopic]
    start_ns: int
    end_ns: int

    def messages(self, topics: set[str], start_ns: int | None) -> Iterator[BagMessage]: ...

    def close(self) -> None: ...


class WholeBag:
    """A bag's folder or one of its files, as rosbags reads it."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._reader.open()
        self.topics = _topics(self._reader.connections)
        self.start_ns = self._reader.start_time
        self.end_ns = self._reader.end_time - 1  # rosbags' end is exclusive

    def messages(self, topics: set[str], start_ns: int | None) -> Iterator[BagMessage]:
        connections = [connection for connection in self._reader.connections if connection.topic in topics]
        if connections:
            for connection, stamp_ns, data in self._reader.messages(connections, start=start_ns):
                yield BagMessage(connection.topic, connection.msgtype, stamp_ns, data)

    def close(self) -> None:
        self._reader.close()


class CutMcap:
    """An MCAP file without an end: its whole records, in the order of the file."""

    def __init__(self, path: Path) -> None:
        self._reader = _UnindexedMcapReader(path)
        self._reader.open()
        self.topics = _topics(self._reader.connections)
        self.start_ns, self.end_ns = self._reader.span_ns

    def messages(self, topics: set[str], start_ns: int | None) -> Iterator[BagMessage]:
        connections = [connection for connection in self._reader.connections if connection.topic in topics]
        for connection, stamp_ns, data in self._reader.messages_scan(connections, start=start_ns):
            yield BagMessage(connection.topic, connection.msgtype, stamp_ns, data)

    def close(self) -> None:
        self._reader.close()


class _UnindexedMcapReader(McapReader):
    """rosbags' reader, told where the last whole record ends in place of being told by the file's end."""

    connections: list[Any]
    span_ns = (0, 0)

    def _open(self) -> None:
        assert self.bio is not None
        size = self.bio.seek(0, 2)
        self.bio.seek(0)
        if self.bio.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
            raise ValueError("it is not an MCAP file" if size else "it has no bytes")
        ends = [len(MCAP_MAGIC)]
        while ends[-1] + MCAP_RECORD_PREFIX_BYTES <= size:
            self.bio.seek(ends[-1] + 1)
            end = ends[-1] + MCAP_RECORD_PREFIX_BYTES + int.from_bytes(self.bio.read(8), "little")
            if end > size:
                break
            ends.append(end)
        self.data_start, self.data_end = ends[min(1, len(ends) - 1)], ends[-1]
        self.meta_scan()
        assert self.statistics is not None
        counts = self.statistics.channel_message_counts
        self.connections = [channel._replace(msgcount=counts.get(channel.id, 0)) for channel in self.connections]
        self.span_ns = (self.statistics.start_time, self.statistics.end_time)


class CutSqlite:
    """A sqlite3 file whose last pages are missing: its messages in the order of recording."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        # Without this a file shorter than its header says is refused as a whole.
        self._database.execute("PRAGMA writable_schema=ON")
        rows = self._database.execute("SELECT id, name, type, offered_qos_profiles FROM topics").fetchall()
        self._topics = {key: (name, type_name) for key, name, type_name, _ in rows}
        counts: Counter[int] = Counter()
        stamps = []
        with suppress(sqlite3.DatabaseError):
            for key, stamp_ns in self._database.execute("SELECT topic_id, timestamp FROM messages ORDER BY id"):
                counts[key] += 1
                stamps.append(stamp_ns)
        self.topics = {
            name: BagTopic(name, type_name, counts[key], _latched(parse_qos(profiles)))
            for key, name, type_name, profiles in rows
        }
        self.start_ns, self.end_ns = min(stamps, default=0), max(stamps, default=0)

    def messages(self, topics: set[str], start_ns: int | None) -> Iterator[BagMessage]:
        query = "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
        with suppress(sqlite3.DatabaseError):  # the cut, which whoever opened this knows of
            for key, stamp_ns, data in self._database.execute(query):
                name, type_name = self._topics[key]
                if name in topics and (start_ns is None or stamp_ns >= start_ns):
                    yield BagMessage(name, type_name, stamp_ns, data)

    def close(self) -> None:
        self._database.close()


def _topics(connections: list[Any]) -> dict[str, BagTopic]:
    topics: dict[str, BagTopic] = {}
    for connection in connections:
        before = topics.get(connection.topic)
        topics[connection.topic] = BagTopic(
            connection.topic,
            connection.msgtype,
            connection.msgcount + (before.count if before else 0),
            _latched(connection.ext.offered_qos_profiles),
        )
    return topics


def _latched(profiles: list[Qos]) -> bool:
    return any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in profiles)
