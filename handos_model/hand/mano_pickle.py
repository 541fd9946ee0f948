"""Read MANO_RIGHT.pkl without running it: arrays are made of their bytes, after checks.

`safe_pickle` turns the file into stubs; here the few that hold MANO's arrays become arrays, each
once. Needs neither chumpy nor the scipy that wrote the file. Every failure is a UserError.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np

from handos_model.errors import UserError
from handos_model.hand.safe_pickle import (
    CH,
    CSC_MATRIX,
    NDARRAY,
    RECONSTRUCT,
    SELECT,
    Array,
    RefusedError,
    Stub,
    Value,
    is_kind,
    is_shape,
    load_stubs,
    plain_array,
)

MAX_BYTES = 32 * 2**20  # MANO's is 4 MB
MAX_LINKS = 8  # of chumpy expressions inside each other


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
    content = load_stubs(data)
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
            raise RefusedError(f'{mano_name} holds NaN, infinity or the wrong kind of numbers')
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
