"""Read a pickle of plain data and numpy arrays without running anything that it names.

HO3D's labels are pickles. A pickle may name any function of any module and call it, so this one
resolves six names to stand-ins and refuses every other; the stand-ins only remember their
arguments, and arrays are rebuilt from their bytes with `numpy.frombuffer`.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 64 << 20


class _Dtype:
    """Stands for numpy.dtype('f8', ...)."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code if isinstance(code, str) else ''
        self.order = '='

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else '='

    def build(self) -> np.dtype[Any]:
        if len(self.code) not in (2, 3) or self.code[0] not in 'biuf':
            raise pickle.UnpicklingError(f'arrays of {self.code!r} are not plain numbers')
        order = self.order if self.order in ('<', '>') else '='
        return np.dtype(f'{order}{self.code}')


class _Array:
    """Stands for an ndarray under construction."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError('array without a plain dtype')
        content = data.encode('latin1') if isinstance(data, str) else bytes(data)
        flat = np.frombuffer(content, dtype.build())
        self.value = flat.reshape(shape, order='F' if fortran else 'C').copy()


def _scalar(dtype: Any, data: Any = b'') -> Any:
    content = data.encode('latin1') if isinstance(data, str) else bytes(data)
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError('number without a plain dtype')
    return np.frombuffer(content, dtype.build(), count=1)[0].item()


def _encode(text: Any, encoding: Any = 'latin1') -> bytes:
    return str(text).encode('latin1')


def _empty() -> bytes:
    return b''


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ('numpy', 'dtype'): _Dtype,
    ('numpy', 'ndarray'): _Array,
    ('_codecs', 'encode'): _encode,
    ('__builtin__', 'bytes'): _empty,
    **{
        (f'numpy.{core}.multiarray', name): stand_in
        for core in ('core', '_core')
        for name, stand_in in (('_reconstruct', _Array), ('scalar', _scalar))
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'it names {module}.{name}, which is no data') from None


def load_plain(path: Path) -> Any:
    """The dicts, lists, strings, numbers and arrays of a pickle file.

    Raises pickle.UnpicklingError where the file holds anything else or is damaged.
    """
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise pickle.UnpicklingError(f'{path}: larger than {MAX_BYTES >> 20} MiB')
    try:
        return _unwrap(_Unpickler(io.BytesIO(data), encoding='latin1').load())
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(f'{path}: {error}') from None
    except Exception as error:
        raise pickle.UnpicklingError(f'{path}: damaged ({error})') from None


def _unwrap(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _unwrap(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_unwrap(item) for item in value)
    return value
