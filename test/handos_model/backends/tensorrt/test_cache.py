"""Engine files: what is refused before any library sees it, and what a failure leaves behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from handos_model.backends.tensorrt import signed_file
from handos_model.backends.tensorrt.cache import (
    EngineCache,
    EngineKey,
    Machine,
    StoredEngine,
)
from handos_model.backends.tensorrt.signed_file import (
    MAGIC,
    RefusedFileError,
    read_signed,
    user_key,
    write_signed,
)
from handos_model.errors import UserError
from handos_model.files import cache_home

MACHINE = Machine('10.3.0', 'Orin', '8.7')
KEY = EngineKey('a' * 64, 'fp16', MACHINE)
ENGINE = StoredEngine(b'a plan' * 100, 3, {'joints_px': 0.25})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> EngineCache:
    return EngineCache(tmp_path / 'engines', said.append)


def path_of(cache: EngineCache) -> Path:
    return cache.folder / KEY.file_name()


def test_round_trip_and_rights(cache: EngineCache) -> None:
    assert cache.load(KEY) is None
    cache.store(KEY, ENGINE)
    assert cache.load(KEY) == ENGINE
    assert EngineCache(cache.folder).load(KEY) == ENGINE  # the key is kept
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    for path in cache.folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert len((cache.folder / 'engine.key').read_bytes()) == 32


def test_a_refused_engine_is_remembered_without_its_plan(cache: EngineCache) -> None:
    cache.store(KEY, replace(ENGINE, refused='joints_px 9 (limit 1.5)'))
    found = cache.load(KEY)
    assert found is not None and found.refused == 'joints_px 9 (limit 1.5)'
    assert found.plan == b''
    assert b'a plan' not in path_of(cache).read_bytes()


@pytest.mark.parametrize('place', ['magic', 'signature', 'lengths', 'header', 'payload'])
@pytest.mark.fault('disk', 'engine with one changed bit', 'refused, built anew')
def test_one_changed_bit_is_refused(cache: EngineCache, said: list[str], place: str) -> None:
    cache.store(KEY, ENGINE)
    data = bytearray(path_of(cache).read_bytes())
    offset = {'magic': 0, 'signature': 8, 'lengths': 41, 'header': 70, 'payload': len(data) - 1}
    data[offset[place]] ^= 1
    path_of(cache).write_bytes(data)
    assert cache.load(KEY) is None
    assert 'is not used' in said[0]


@pytest.mark.fault('disk', 'engine that is cut off', 'refused, built anew')
def test_every_truncation_and_extension_is_refused(cache: EngineCache) -> None:
    cache.store(KEY, ENGINE)
    whole = path_of(cache).read_bytes()
    for length in [*range(0, 120), len(whole) - 1]:
        path_of(cache).write_bytes(whole[:length])
        assert cache.load(KEY) is None, length
    path_of(cache).write_bytes(whole + b'x')
    assert cache.load(KEY) is None
    path_of(cache).write_bytes(whole)
    assert cache.load(KEY) == ENGINE


def test_what_another_key_signed_is_refused(
    cache: EngineCache, tmp_path: Path, said: list[str]
) -> None:
    other = EngineCache(tmp_path / 'other')
    other.store(KEY, ENGINE)
    path_of(cache).write_bytes(path_of(other).read_bytes())
    path_of(cache).chmod(0o600)
    assert cache.load(KEY) is None
    assert 'not signed' in said[0]
    path_of(cache).write_bytes(b'a bare plan without any signature' * 10)
    assert cache.load(KEY) is None
    assert 'no signed file' in said[1]


@pytest.mark.parametrize(
    'other',
    [
        replace(KEY, onnx_sha256='b' * 64),
        replace(KEY, precision='fp32'),
        replace(KEY, machine=replace(MACHINE, tensorrt='10.3.1')),
        replace(KEY, machine=replace(MACHINE, gpu='Thor')),
        replace(KEY, machine=replace(MACHINE, compute_capability='11.0')),
    ],
)
def test_foreign_engines_are_not_found_and_a_renamed_file_is_refused(
    cache: EngineCache, said: list[str], other: EngineKey
) -> None:
    cache.store(KEY, ENGINE)
    assert other.file_name() != KEY.file_name()
    assert cache.load(other) is None and not said
    path_of(cache).rename(cache.folder / other.file_name())  # a right signature, a wrong machine
    assert cache.load(other) is None
    assert 'another machine or graph' in said[0]


@pytest.mark.fault('disk', 'cache that others may write', 'refused')
def test_links_and_files_that_others_may_write_are_refused(
    cache: EngineCache, tmp_path: Path, said: list[str]
) -> None:
    cache.store(KEY, ENGINE)
    path_of(cache).chmod(0o622)
    assert cache.load(KEY) is None and 'others may write' in said[-1]
    path_of(cache).chmod(0o600)
    moved = path_of(cache).rename(tmp_path / 'moved')
    path_of(cache).symlink_to(moved)
    assert cache.load(KEY) is None and 'cannot be opened' in said[-1]
    path_of(cache).unlink()
    os.mkfifo(path_of(cache))
    assert cache.load(KEY) is None and 'no regular file' in said[-1]


def test_a_signed_header_of_wrong_lengths_is_refused(tmp_path: Path) -> None:
    key = user_key(tmp_path)
    path = tmp_path / 'file'
    write_signed(path, key, {}, b'payload')
    signed = bytearray(path.read_bytes()[len(MAGIC) + 32 :])
    signed[0] += 1
    path.write_bytes(MAGIC + signed_file._mac(key, bytes(signed)) + signed)
    path.chmod(0o600)
    with pytest.raises(RefusedFileError, match='lengths'):
        read_signed(path, key)


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda path: path.chmod(0o644), 'can be read by others'),
        (lambda path: path.write_bytes(b'short'), 'damaged'),
        (lambda path: (path.unlink(), path.symlink_to('/dev/zero')), 'cannot be opened'),
    ],
)
@pytest.mark.fault('disk', 'a key that others can read', 'no engine is used')
def test_a_key_that_is_not_private_stops_everything(cache: EngineCache, spoil, words: str) -> None:  # type: ignore[no-untyped-def]
    spoil(cache.folder / 'engine.key')
    with pytest.raises(UserError, match=f'{words}.*Delete it'):
        EngineCache(cache.folder)


@pytest.mark.fault('disk', 'full while an engine is written', 'the old one stays')
def test_a_full_disk_leaves_the_old_file(
    cache: EngineCache, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store(KEY, ENGINE)
    before = sorted(path.name for path in cache.folder.iterdir())

    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(signed_file.os, 'fsync', no_room)
    with pytest.raises(UserError, match=r'the disk is full; 1 MB\): make room'):
        cache.store(KEY, replace(ENGINE, plan=b'x' * 1_000_000))
    cache.store_timings(MACHINE, b'timings')  # said, not raised
    assert 'disk is full' in said[0]
    monkeypatch.undo()
    assert cache.load(KEY) == ENGINE
    assert sorted(path.name for path in cache.folder.iterdir()) == before


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
@pytest.mark.fault('disk', 'fails half way through an engine', 'the old one stays')
def test_a_write_that_fails_half_way_leaves_the_old_file(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own refusal, from a device that is always full."""
    cache.store(KEY, ENGINE)
    real = os.fdopen

    def full(descriptor: int, mode: str) -> object:
        os.close(descriptor)
        return real(os.open('/dev/full', os.O_WRONLY), mode)

    monkeypatch.setattr(signed_file.os, 'fdopen', lambda *a: full(*a) if 'w' in a[1] else real(*a))
    with pytest.raises(UserError, match='disk is full'):
        cache.store(KEY, replace(ENGINE, plan=b'x' * 1_000_000))
    monkeypatch.undo()
    assert cache.load(KEY) == ENGINE
    assert not list(cache.folder.glob('.*engine.*'))


@pytest.mark.fault('disk', 'kill -9 while an engine is written', 'swept by the next build')
def test_what_a_killed_process_left_is_swept_by_the_next_build(cache: EngineCache) -> None:
    left_over = cache.folder / f'.{KEY.file_name()}.abcd'
    left_over.write_bytes(b'half')
    with cache.building(KEY):
        assert not left_over.exists()


def build_once(folder: Path, started: float, log: Path) -> None:
    time.sleep(max(0.0, started - time.time()))
    cache = EngineCache(folder)
    with cache.building(KEY):
        if cache.load(KEY) is None:
            time.sleep(0.3)
            cache.store(KEY, ENGINE)
            with log.open('a') as file:
                file.write('built\n')
    assert cache.load(KEY) == ENGINE


def test_processes_that_build_at_once_make_one_key_and_one_engine(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    log = tmp_path / 'log'
    arguments = (tmp_path / 'engines', time.time() + 0.2, log)
    processes = [context.Process(target=build_once, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == 'built\n'


def test_timings_are_signed_too(cache: EngineCache, said: list[str]) -> None:
    assert cache.load_timings(MACHINE) == b''
    cache.store_timings(MACHINE, b'timings')
    assert cache.load_timings(MACHINE) == b'timings'
    assert cache.load_timings(replace(MACHINE, tensorrt='11.1.0')) == b''
    (path,) = cache.folder.glob('*.timings')
    path.write_bytes(path.read_bytes() + b'x')
    assert cache.load_timings(MACHINE) == b'' and said


def test_where_the_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert EngineCache.of_user().folder == tmp_path / 'handos' / 'engines'
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    for value in ('', 'relative/path'):
        monkeypatch.setenv('XDG_CACHE_HOME', value)
        assert cache_home() == tmp_path / 'home' / '.cache'

    def homeless() -> Path:
        raise RuntimeError('no home')

    monkeypatch.setattr(Path, 'home', homeless)
    with pytest.raises(UserError, match='XDG_CACHE_HOME'):
        cache_home()


def test_a_folder_that_cannot_be_trusted_or_used_is_said(tmp_path: Path) -> None:
    (tmp_path / 'open').mkdir()
    (tmp_path / 'open').chmod(0o777)
    with pytest.raises(UserError, match='others may write to it'):
        EngineCache(tmp_path / 'open')
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='set XDG_CACHE_HOME'):
        EngineCache(tmp_path / 'file' / 'engines')
