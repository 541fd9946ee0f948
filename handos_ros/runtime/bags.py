"""rosbag2 recordings, read and written without ROS 2 (by rosbags)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handos_model.errors import UserError

try:
    from rosbags.interfaces import (
        Connection,
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
except ModuleNotFoundError as error:
    raise UserError(
        f"{error.name} is missing, which reads and writes recordings: pip install 'rosbags>=0.11'"
    ) from error

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd  # rosbags depends on it

from handos_ros.runtime.embedded.wire import cdr
from handos_ros.runtime.embedded.wire.messages import build_typestore

BAG_VERSION = 9  # of rosbag2's metadata: Jazzy's
UNKNOWN_TYPE_HASH = 'RIHS01_' + '0' * 64  # Humble's recordings have neither hash nor definition
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'  # no CDR message begins so


@dataclass(frozen=True)
class BagMessage:
    """One message as it was recorded."""

    topic: str
    type_name: str  # package/msg/Name
    time_ns: int  # of reception
    raw: bytes  # CDR


class Messages:
    """The message classes of recordings, and their bytes."""

    def __init__(self) -> None:
        self.store = build_typestore()

    def __call__(self, type_name: str) -> Any:
        """The class of `package/msg/Name`."""
        return self.store.types[type_name]

    def deserialize(self, message: BagMessage) -> Any:
        """Raises ValueError for bytes that are no such message."""
        try:
            return cdr.deserialize(self.store, message.raw, message.type_name)
        except ValueError as error:
            raise ValueError(
                f'{message.topic} holds a message that cannot be read: {error}'
            ) from error

    def serialize(self, message: Any) -> bytes:
        return bytes(cdr.serialize(self.store, message))


class BagReader:
    """A recording: a folder with metadata.yaml, or one .mcap or .db3 file. Raises UserError."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = Reader(path)
            self._reader.open()
        except Exception as error:  # what its parser meets in a damaged file raises anything
            raise UserError(f'{path} is no recording that can be read: {error!r}') from error
        self.path = path
        self.connections: list[Connection] = list(self._reader.connections)
        self.topics = {c.topic: full_type_name(c.msgtype) for c in self.connections}
        self.message_count: int = self._reader.message_count
        files = [path] if path.is_file() else list(path.iterdir())
        self.is_mcap = any('.mcap' in file.suffixes for file in files)

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def messages(self) -> Iterator[BagMessage]:
        """Every message in the order of its reception. Raises UserError for a damaged file."""
        try:
            for connection, time_ns, raw in self._reader.messages():
                type_name = full_type_name(connection.msgtype)
                # One file of a compressed recording, read alone, does not say that it is one.
                whole = zstd.decompress(raw) if raw.startswith(ZSTD_MAGIC) else raw
                yield BagMessage(connection.topic, type_name, time_ns, whole)
        except Exception as error:  # as above
            raise UserError(f'{self.path} is damaged: {error!r}') from error


class BagWriter:
    """A new recording in the folder `path`. Raises UserError where that exists."""

    def __init__(self, path: Path, messages: Messages, *, mcap: bool) -> None:
        if path.exists():
            raise UserError(f'{path} exists already: give another name, or delete it')
        self._messages = messages
        storage = StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3
        self._writer = Writer(path, version=BAG_VERSION, storage_plugin=storage)
        self._writer.open()
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def copy_topic(self, source: Connection) -> None:
        """Add a topic as another recording has it, also of a type that is not known here."""
        type_name = full_type_name(source.msgtype)
        qos = getattr(source.ext, 'offered_qos_profiles', ())
        known = type_name in self._messages.store.fielddefs
        definition: dict[str, Any] = {'typestore': self._messages.store}
        if source.msgdef.data or not known:
            digest = source.digest or UNKNOWN_TYPE_HASH
            definition = {'msgdef': source.msgdef.data, 'rihs01': digest}
        self._connections[source.topic] = self._writer.add_connection(
            source.topic, type_name, offered_qos_profiles=qos, **definition
        )

    def add_topic(self, topic: str, type_name: str, *, latched: bool = False) -> None:
        """Add a topic unless it is there already."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic,
                type_name,
                typestore=self._messages.store,
                offered_qos_profiles=[_latched_qos()] if latched else (),
            )

    def write(self, topic: str, time_ns: int, raw: bytes) -> None:
        self._writer.write(self._connections[topic], time_ns, raw)


def full_type_name(name: str) -> str:
    """`sensor_msgs/Image`, as the first rosbag2 wrote it, -> `sensor_msgs/msg/Image`."""
    parts = name.split('/')
    return f'{parts[0]}/msg/{parts[1]}' if len(parts) == 2 else name


def _latched_qos() -> Qos:
    forever = QosTime(sec=0x7FFFFFFFFFFFFFFF // 10**9, nsec=0)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
