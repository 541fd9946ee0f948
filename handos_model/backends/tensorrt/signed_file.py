"""Files that only this user's programs can have written: a header and a payload under an HMAC.

An engine is native code, so a file that came from elsewhere must never reach the library that
would run it. The key lies beside the files, readable by the user alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handos_model.errors import UserError

MAGIC = b'HANDOS\x00\x01'
KEY_BYTES = 32
_MAC_BYTES = hashlib.sha256().digest_size
_LENGTHS = struct.Struct('<QQ')  # of the header and of the payload
_START = len(MAGIC) + _MAC_BYTES


class RefusedFileError(Exception):
    """The file is not what this user's programs wrote; the message says why."""


@dataclass(frozen=True)
class SignedFile:
    """What stood in a file whose signature was right."""

    header: dict[str, Any]
    payload: bytes


def read_signed(path: Path, key: bytes) -> SignedFile:
    """Read once, check the signature, and only then look at the content.

    Raises FileNotFoundError, or RefusedFileError where it is foreign, changed or cut short.
    """
    data = _read_own(path)
    if data[: len(MAGIC)] != MAGIC or len(data) < _START + _LENGTHS.size:
        raise RefusedFileError('it is no signed file of HandOS, or was cut short')
    signed = memoryview(data)[_START:]
    if not hmac.compare_digest(_mac(key, signed), data[len(MAGIC) : _START]):
        raise RefusedFileError("it was changed, cut short, or not signed with this user's key")
    header_bytes, payload_bytes = _LENGTHS.unpack_from(signed)
    body = signed[_LENGTHS.size :]
    if header_bytes + payload_bytes != len(body):
        raise RefusedFileError('its lengths are wrong')
    try:
        header = json.loads(bytes(body[:header_bytes]))
    except (ValueError, RecursionError):
        raise RefusedFileError('its header is no JSON') from None
    if not isinstance(header, dict):
        raise RefusedFileError('its header is no object')
    return SignedFile(header, bytes(body[header_bytes:]))


def write_signed(path: Path, key: bytes, header: dict[str, Any], payload: bytes) -> None:
    """Replace `path` at once and wholly; what stood there stays where anything fails.

    Raises OSError, for one where the disk is full.
    """
    text = json.dumps(header, sort_keys=True).encode()
    signed = _LENGTHS.pack(len(text), len(payload)) + text + payload
    _write_atomically(path, MAGIC + _mac(key, signed) + signed)


def user_key(folder: Path) -> bytes:
    """This user's key in `folder`, made on first use; UserError where others can read it."""
    path = folder / 'engine.key'
    with locked(folder / 'engine.key.lock'):
        with suppress(FileNotFoundError):
            return _checked_key(path)
        _write_atomically(path, secrets.token_bytes(KEY_BYTES))
        return _checked_key(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` alone among processes and threads; a dead process lets go."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _mac(key: bytes, data: bytes | memoryview) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _checked_key(path: Path) -> bytes:
    try:
        key = _read_own(path)
    except RefusedFileError as error:
        raise UserError(f'{path}: {error}. Delete it: engines are then built again') from None
    if len(key) != KEY_BYTES:
        raise UserError(f'{path} is damaged. Delete it: engines are then built again')
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(
            f'{path} can be read by others, who could sign engines with it. Delete it: engines '
            'are then built again'
        )
    return key


def _read_own(path: Path) -> bytes:
    """A regular file of this user that nobody else may write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RefusedFileError(f'it cannot be opened ({error.strerror})') from None
    with os.fdopen(descriptor, 'rb') as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise RefusedFileError('it is no regular file of this user')
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RefusedFileError('others may write to it')
        return file.read()


def _write_atomically(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')  # 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # so that the name survives a power cut, too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
