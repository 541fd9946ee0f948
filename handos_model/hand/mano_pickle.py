"""Read MANO_RIGHT.pkl without running it: arrays are made of their bytes, after checks.

`pickle_machine` turns the file into stubs; here the few that hold MANO's arrays become arrays,
each once, its type from a list and its size that of the bytes that are there. Needs neither
chumpy nor the scipy that wrote the file. Every failure is a UserError.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from handos_model.errors import UserError
from handos_model.hand.pickle_machine import (
    CH,
    CSC_MATRIX,
    DTYPE,
    NDARRAY,
    RECONSTRUCT,
    SELECT,
    Machine,
    RefusedError,
    Stub,
    Value,
)

Array: TypeAlias = npt.NDArray[Any]

MAX_BYTES = 32 * 2**20  # MANO's is 4 MB
MAX_LINKS = 8  # of chumpy expressions inside each other
ITEM_TYPES = {f'{kind}{size}' for kind in 'iu' for size in (1, 2, 4, 8)} | {'f4', 'f8', 'b1'}


def item_type(stub: Value) -> np.dtype[Any]:
    """The dtype of `numpy.dtype(code, ...)` with its state `(version, byte order, ...)`."""
    code = stub.arguments[0] if is_kind(stub, DTYPE) and stub.arguments else None
    if type(code) is not str or code not in ITEM_TYPES:
        raise RefusedError('an array whose items are not plain numbers')
    order = stub.state[1] if isinstance(stub.state, tuple) and len(stub.state) > 1 else '='
    if type(order) is not str or order not in ('<', '>', '|', '='):
        raise RefusedError('an array of unknown byte order')
    dtype: np.dtype[Any] = np.dtype(order + code)
    return dtype


def is_kind(value: Value, *kinds: int) -> bool:
    return isinstance(value, Stub) and value.kind in kinds


def is_shape(value: Value) -> bool:
    return (
        isinstance(value, tuple)
        and 0 < len(value) <= 4
        and all(type(size) is int and 0 <= size <= MAX_BYTES for size in value)
    )


def plain_array(stub: Stub) -> Array:
    """The array of `ndarray`'s state `(version, shape, dtype, is_fortran, bytes)`."""
    if not isinstance(stub.state, tuple) or len(stub.state) != 5:
        raise RefusedError('an array without content')
    _, shape, dtype_stub, is_fortran, content = stub.state
    dtype = item_type(dtype_stub)
    if isinstance(content, str):  # Python 2 wrote bytes as text
        try:
            content = content.encode('latin-1')
        except UnicodeEncodeError:
            raise RefusedError('an array of text') from None
    if not isinstance(content, bytes) or not is_shape(shape):
        raise RefusedError('an array of something else than numbers')
    if math.prod(shape) * dtype.itemsize != len(content):
        raise RefusedError(f'an array of shape {shape} in {len(content)} bytes')
    flat = np.frombuffer(content, dtype) if content else np.zeros(0, dtype)
    array: Array = flat.reshape(shape, order='F' if is_fortran in (True, 1) else 'C')
    return array


def field(stub: Stub, name: str) -> Value:
    if not isinstance(stub.state, dict) or name not in stub.state:
        raise RefusedError(f'an object without its {name!r}')
    return stub.state[name]


def as_array(value: Value, links: int = 0) -> Array:
    """The array behind a numpy, scipy or chumpy stub."""
    if links > MAX_LINKS:
        raise RefusedError('expressions nested too deeply')
    if is_kind(value, RECONSTRUCT, NDARRAY):
        return plain_array(value)
    if is_kind(value, CH):
        return as_array(field(value, 'x'), links + 1)
    if is_kind(value, SELECT):
        source = as_array(field(value, 'a'), links + 1).reshape(-1)
        indices = as_array(field(value, 'idxs'), links + 1).reshape(-1)
        shape = field(value, 'preferred_shape')
        if (
            not is_shape(shape)
            or math.prod(shape) != len(indices)
            or indices.dtype.kind not in 'iu'
        ):
            raise RefusedError('a selection that does not fit its shape')
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(source)):
            raise RefusedError('a selection of what is not there')
        selected: Array = source[indices].reshape(shape)
        return selected
    if is_kind(value, CSC_MATRIX):
        return dense(value, links)
    raise RefusedError('a number where an array should be')


def dense(stub: Stub, links: int) -> Array:
    """A compressed sparse column matrix, small enough to be MANO's regressor, as an array."""
    shape = field(stub, '_shape')
    if not is_shape(shape) or len(shape) != 2 or math.prod(shape) > 2**20:
        raise RefusedError('a sparse matrix of impossible size')
    data, indices, starts = (
        as_array(field(stub, name), links + 1) for name in ('data', 'indices', 'indptr')
    )
    rows, columns = shape
    is_valid = (
        data.ndim == indices.ndim == starts.ndim == 1
        and indices.dtype.kind in 'iu'
        and starts.dtype.kind in 'iu'
        and len(starts) == columns + 1
        and len(data) == len(indices) == int(starts[-1])
        and int(starts[0]) == 0
        and bool((starts[1:] >= starts[:-1]).all())
        and bool(((indices >= 0) & (indices < rows)).all())
    )
    if not is_valid:
        raise RefusedError('a sparse matrix whose indices do not fit')
    counts = (starts[1:] - starts[:-1]).astype(np.int64)
    matrix = np.zeros(shape, dtype=np.float64)
    np.add.at(matrix, (indices, np.repeat(np.arange(columns), counts)), data)
    return matrix


# MANO's names, ours, and the shapes that ours must have.
REQUIRED = {
    'v_template': ('v_template', (778, 3)),
    'shapedirs': ('shapedirs', (778, 3, 10)),
    'posedirs': ('posedirs', (778, 3, 135)),
    'J_regressor': ('joint_regressor', (16, 778)),
    'weights': ('skinning_weights', (778, 16)),
    'f': ('faces', (1538, 3)),
}
OPTIONAL = {  # of MANO's pose space, which some datasets' labels are in
    'hands_components': ('hands_components', (45, 45)),
    'hands_mean': ('hands_mean', (45,)),
}


def parse_mano(data: bytes) -> dict[str, Array]:
    """MANO_RIGHT.pkl, as bytes, as float64 and int64 arrays by our names. Raises RefusedError."""
    content = Machine().run(data)
    if not isinstance(content, dict):
        raise RefusedError('it holds no dictionary')
    missing = sorted(set(REQUIRED) - set(content))
    if missing:
        raise RefusedError(f'it lacks {", ".join(missing)}')
    arrays = {}
    for mano_name, (name, shape) in (REQUIRED | OPTIONAL).items():
        if mano_name not in content:
            continue
        array = as_array(content[mano_name])
        if array.shape != shape:
            raise RefusedError(f'{mano_name} is {list(array.shape)}, not {list(shape)}')
        if not np.isfinite(array).all() or (name == 'faces' and array.dtype.kind not in 'iu'):
            raise RefusedError(f'{mano_name} holds what are no numbers')
        arrays[name] = np.ascontiguousarray(array, np.int64 if name == 'faces' else np.float64)
    return arrays


def read_mano(path: Path) -> tuple[dict[str, Array], str]:
    """The arrays of a MANO pickle and the SHA-256 of the file. Raises UserError."""
    try:
        with path.open('rb') as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from None
    if len(data) > MAX_BYTES:
        raise UserError(f'{path} is larger than {MAX_BYTES >> 20} MB: it is not MANO_RIGHT.pkl')
    try:
        return parse_mano(data), hashlib.sha256(data).hexdigest()
    except RefusedError as reason:
        raise UserError(
            f'{path} is not a MANO model: {reason}. '
            'Give the MANO_RIGHT.pkl of mano_v1_2 from https://mano.is.tue.mpg.de'
        ) from None
