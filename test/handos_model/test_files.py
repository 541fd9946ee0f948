"""Files that appear whole, and what is no file."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from handos_model.files import write_whole


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(pipe.read_bytes)
        write_whole(pipe, b'hands')
        assert received.result(timeout=10) == b'hands'
    assert pipe.is_fifo()


@pytest.mark.parametrize('existing', [True, False])
def test_a_link_keeps_leading_to_its_file(tmp_path: Path, existing: bool) -> None:
    file, link = tmp_path / 'file', tmp_path / 'link'
    if existing:
        file.write_bytes(b'old')
    link.symlink_to(file)
    write_whole(link, b'new')
    assert link.is_symlink() and file.read_bytes() == b'new'
    assert sorted(tmp_path.iterdir()) == [file, link]


@pytest.mark.fault('disk', 'writing fails', 'what was there stays')
def test_what_was_there_stays_where_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / 'file'
    file.write_bytes(b'old')

    def full(path: Path, content: bytes) -> int:
        with path.open('wb') as half:
            half.write(content[:1])
        raise OSError('No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match='No space'):
        write_whole(file, b'new')
    assert file.read_bytes() == b'old' and list(tmp_path.iterdir()) == [file]
