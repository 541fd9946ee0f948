"""Writing what a person asked for, so that a failure never leaves half a file."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write the whole file or leave what was there; a link keeps leading to its file.

    What is there and no file (a pipe, /dev/null) is written to and stays what it is. Raises
    OSError.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = path.resolve()
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
