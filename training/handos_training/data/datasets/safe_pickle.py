"""Read a pickle of plain data and numpy arrays, such as HO3D's labels, without running it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from handos_model.hand.safe_pickle import (
    NDARRAY,
    RECONSTRUCT,
    SCALAR,
    RefusedError,
    Stub,
    load_stubs,
    plain_array,
    plain_number,
)

MAX_BYTES = 64 << 20


def load_plain(path: Path) -> Any:
    """The dicts, lists, strings, numbers and arrays of a pickle file.

    Raises pickle.UnpicklingError where the file holds anything else or is damaged.
    """
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise pickle.UnpicklingError(f'{path}: larger than {MAX_BYTES >> 20} MiB')
    try:
        return _plain(load_stubs(data), {})
    except (RefusedError, RecursionError) as error:
        raise pickle.UnpicklingError(f'{path}: {error}') from None


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """The value without stubs; what stands in it several times is made once."""
    if id(value) in known:
        return known[id(value)]
    plain = value
    if isinstance(value, dict):
        plain = {key: _plain(item, known) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        plain = type(value)(_plain(item, known) for item in value)
    elif isinstance(value, Stub):
        if value.kind == SCALAR:
            plain = plain_number(value)
        elif value.kind in (NDARRAY, RECONSTRUCT):
            plain = plain_array(value).copy()
        else:
            raise RefusedError('it holds more than numbers, text and arrays')
    known[id(value)] = plain
    return plain
