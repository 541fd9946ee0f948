"""Messages to and from the bytes on the wire: little-endian plain CDR (XCDR version 1)."""

from __future__ import annotations

from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

ENCAPSULATION = b'\x00\x01\x00\x00'


def serialize(store: Typestore, message: Any) -> bytearray:
    """CDR bytes of a message, padded to the multiple of four that Cyclone DDS wants."""
    definition = store.get_msgdef(message.__msgtype__)
    size = definition.getsize_cdr(0, message, store)
    raw = bytearray(len(ENCAPSULATION) + (size + 3 & ~3))
    raw[: len(ENCAPSULATION)] = ENCAPSULATION
    definition.serialize_cdr_le(memoryview(raw)[len(ENCAPSULATION) :], 0, message, store)
    return raw


def deserialize(store: Typestore, raw: bytes, type_name: str) -> Any:
    """The message; its arrays are read-only views into `raw`.

    Raises ValueError for bytes that are no such message.
    """
    try:
        return store.deserialize_cdr(memoryview(raw), type_name)
    except (SerdeError, TypeError, IndexError) as error:
        raise ValueError(f'no {type_name}: {error}') from error
