"""TensorRT engines on disk: one signed file per ONNX graph, TensorRT version, GPU and precision.

A file records the verdict of comparing the engine with ONNX Runtime. One that failed is kept
without its engine, so that it is not built again at every start.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from handos_model.backends.tensorrt.signed_file import (
    RefusedFileError,
    locked,
    read_signed,
    user_key,
    write_signed,
)
from handos_model.errors import UserError
from handos_model.files import cache_home

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Machine:
    """What an engine is tied to."""

    tensorrt: str
    gpu: str
    compute_capability: str


@dataclass(frozen=True)
class EngineKey:
    """Which engine: of which graph, for which machine."""

    onnx_sha256: str
    precision: str
    machine: Machine

    def header(self) -> dict[str, Any]:
        return {'onnx_sha256': self.onnx_sha256, 'precision': self.precision} | asdict(
            self.machine
        )

    def file_name(self) -> str:
        return f'{_digest(self.header())}.engine'


@dataclass(frozen=True)
class StoredEngine:
    """A serialised engine (`plan`) and how it compared with ONNX Runtime.

    `frames` real frames were compared, 0 where the pictures were made up. `refused` says why it
    may not be used, and is empty where it may; a refused one has no plan.
    """

    plan: bytes
    frames: int
    parity: dict[str, float] = field(default_factory=dict)
    refused: str = ''


class EngineCache:
    """The engines of this user in one folder."""

    def __init__(self, folder: Path, report: Callable[[str], None] = lambda line: None) -> None:
        """Raises UserError where `folder` cannot be used or belongs to somebody else."""
        self.folder, self._report = folder, report
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise UserError(
                    f'{folder} belongs to another user or others may write to it: engines are '
                    'native code, so take it back (chown, chmod 700) or delete it'
                )
            self._key = user_key(folder)
        except OSError as error:
            raise UserError(
                f'{folder} cannot be used for engines ({error.strerror}): set XDG_CACHE_HOME to '
                'a folder on a disk with room that this user can write to'
            ) from error

    @classmethod
    def of_user(cls, report: Callable[[str], None] = lambda line: None) -> EngineCache:
        """In `$XDG_CACHE_HOME/handos/engines`, or `~/.cache/handos/engines`."""
        return cls(cache_home() / 'handos' / 'engines', report)

    def load(self, key: EngineKey) -> StoredEngine | None:
        """The engine of `key`, None where there is none that this user's programs wrote."""
        header, payload = self._read(self.folder / key.file_name(), key.header())
        if header is None:
            return None
        if not payload and not header['refused']:
            return None
        return StoredEngine(payload, header['frames'], header['parity'], header['refused'])

    def store(self, key: EngineKey, engine: StoredEngine) -> None:
        """Write or replace. Raises UserError, leaving the old file, where it cannot be written."""
        verdict = {'frames': engine.frames, 'parity': engine.parity, 'refused': engine.refused}
        payload = b'' if engine.refused else engine.plan
        self._write(self.folder / key.file_name(), key.header() | verdict, payload)

    @contextmanager
    def building(self, key: EngineKey) -> Iterator[None]:
        """Only one process builds the engine of `key`; the others wait, then find it."""
        with locked(self.folder / f'{key.file_name()}.lock'):
            for left_over in self.folder.glob(f'.{key.file_name()}.*'):  # of a killed process
                left_over.unlink(missing_ok=True)
            yield

    def load_timings(self, machine: Machine) -> bytes:
        """TensorRT's timing cache, empty where there is none; the library parses it, so signed."""
        header, payload = self._read(self._timings(machine), asdict(machine))
        return b'' if header is None else payload

    def store_timings(self, machine: Machine, timings: bytes) -> None:
        """They only save time: where they cannot be written, that is said and all goes on."""
        try:
            self._write(self._timings(machine), asdict(machine), timings)
        except UserError as error:
            self._report(str(error))

    def _timings(self, machine: Machine) -> Path:
        return self.folder / f'{_digest(asdict(machine))}.timings'

    def _read(self, path: Path, wanted: dict[str, Any]) -> tuple[dict[str, Any] | None, bytes]:
        try:
            file = read_signed(path, self._key)
        except FileNotFoundError:
            return None, b''
        except RefusedFileError as error:
            self._report(f'{path} is not used: {error}; it is built again')
            return None, b''
        expected = {'format': FORMAT_VERSION, **wanted}
        if any(file.header.get(name) != value for name, value in expected.items()):
            self._report(f'{path} is not used: it is of another machine or graph')
            return None, b''
        return file.header, file.payload

    def _write(self, path: Path, header: dict[str, Any], payload: bytes) -> None:
        try:
            write_signed(path, self._key, {'format': FORMAT_VERSION, **header}, payload)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = 'the disk is full' if full else str(error.strerror)
            raise UserError(
                f'{path} could not be written ({what}; {len(payload) / 1e6:.0f} MB): make room, '
                'or set XDG_CACHE_HOME to a folder on another disk'
            ) from error


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
