"""Files: written whole or not at all, and where those are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from handos_model.errors import UserError


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


def cache_home() -> Path:
    """As the XDG base directory specification says: a relative path counts as none."""
    given = Path(os.environ.get('XDG_CACHE_HOME', ''))
    if given.is_absolute():
        return given
    try:
        return Path.home() / '.cache'
    except RuntimeError:
        raise UserError(
            'this user has no home folder: set XDG_CACHE_HOME to where engines may be kept'
        ) from None
