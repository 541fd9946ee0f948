"""Somebody else's pickle as data: nothing of it is imported, nothing of it is called.

A pickle is a program that may name any function and call it. Here it may name only what the
allow list holds, and each of these names stands for itself: where the program calls it, a `Stub`
remembers the arguments, and later the state. Work and memory are bounded by the pickle's size and
MAX_OPCODES. Arrays are made of the bytes in their stubs, each with a type from a list.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

MAX_OPCODES = 200_000  # MANO's has some hundreds
MAX_ITEMS = 32 * 2**20  # along one axis of an array

DTYPE, NDARRAY, RECONSTRUCT, SCALAR, ENCODE, BYTES, SET, CSC_MATRIX, CH, SELECT = range(10)
ALLOWED = {
    ('numpy', 'dtype'): DTYPE,
    ('numpy', 'ndarray'): NDARRAY,
    **{(f'numpy.{core}.multiarray', '_reconstruct'): RECONSTRUCT for core in ('core', '_core')},
    **{(f'numpy.{core}.multiarray', 'scalar'): SCALAR for core in ('core', '_core')},
    ('_codecs', 'encode'): ENCODE,  # how Python 3 writes bytes for Python 2
    ('__builtin__', 'bytes'): BYTES,
    ('__builtin__', 'set'): SET,
    ('builtins', 'set'): SET,
    ('scipy.sparse.csc', 'csc_matrix'): CSC_MATRIX,
    ('scipy.sparse._csc', 'csc_matrix'): CSC_MATRIX,
    ('chumpy.ch', 'Ch'): CH,
    ('chumpy.reordering', 'Select'): SELECT,
}
ITEM_TYPES = {f'{kind}{size}' for kind in 'iu' for size in (1, 2, 4, 8)} | {'f4', 'f8', 'b1'}
# What picklers write for plain data. Not among them: classes made by name and arguments (INST,
# OBJ, NEWOBJ_EX), what is kept outside (EXT1, PERSID), and what is allocated before it is read.
INSTRUCTIONS = frozenset(
    (
        *('PROTO', 'FRAME', 'STOP', 'MARK', 'POP', 'POP_MARK', 'DUP', 'GLOBAL', 'STACK_GLOBAL'),
        *('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'GET', 'BINGET', 'LONG_BINGET'),
        *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'),
        *('STRING', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'),
        *('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
        *('NONE', 'NEWTRUE', 'NEWFALSE', 'TUPLE', 'EMPTY_TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3'),
        *('LIST', 'EMPTY_LIST', 'APPEND', 'APPENDS', 'DICT', 'EMPTY_DICT', 'SETITEM', 'SETITEMS'),
        *('EMPTY_SET', 'ADDITEMS', 'REDUCE', 'NEWOBJ', 'BUILD'),
    )
)

Array: TypeAlias = npt.NDArray[Any]
Value: TypeAlias = Any  # whatever a pickle can hold, with Stub and Name for its objects


class RefusedError(Exception):
    """Why the pickle is refused, in words that continue 'it is not a MANO model: ...'."""


@dataclass(frozen=True)
class Name:
    """One of the allowed names, not the thing."""

    kind: int


@dataclass(eq=False)
class Stub:
    """An object that was not made: its class, the arguments of its making, its state."""

    kind: int
    arguments: tuple[Value, ...] = ()
    state: Value = None


def load_stubs(data: bytes) -> Value:
    """What the pickle holds: plain values, and a `Stub` for each object. Raises RefusedError."""
    try:
        _check_instructions(data)
        return _Unpickler(io.BytesIO(data), encoding='latin-1').load()  # as Python 2 wrote bytes
    except RefusedError:
        raise
    except Exception as error:  # a damaged pickle fails in whatever way its values allow
        raise RefusedError(f'damaged pickle ({str(error)[:80]})') from None


def is_kind(value: Value, *kinds: int) -> bool:
    return isinstance(value, Stub) and value.kind in kinds


def is_shape(value: Value) -> bool:
    return (
        isinstance(value, tuple)
        and 0 < len(value) <= 4
        and all(type(size) is int and 0 <= size <= MAX_ITEMS for size in value)
    )


def plain_array(stub: Stub) -> Array:
    """The array of `ndarray`'s state `(version, shape, dtype, is_fortran, bytes)`."""
    if not isinstance(stub.state, tuple) or len(stub.state) != 5:
        raise RefusedError('an array without content')
    _, shape, dtype_stub, is_fortran, stored = stub.state
    dtype, content = _item_type(dtype_stub), _content(stored)
    if not is_shape(shape):
        raise RefusedError('an array of something else than numbers')
    if math.prod(shape) * dtype.itemsize != len(content):
        raise RefusedError(f'an array of shape {shape} in {len(content)} bytes')
    flat = np.frombuffer(content, dtype) if content else np.zeros(0, dtype)
    array: Array = flat.reshape(shape, order='F' if is_fortran in (True, 1) else 'C')
    return array


def plain_number(stub: Stub) -> Any:
    """The number of numpy's `scalar(dtype, bytes)`."""
    if len(stub.arguments) != 2:
        raise RefusedError('a number without content')
    dtype, content = _item_type(stub.arguments[0]), _content(stub.arguments[1])
    if len(content) != dtype.itemsize:
        raise RefusedError(f'a number in {len(content)} bytes')
    return np.frombuffer(content, dtype)[0].item()


def _item_type(stub: Value) -> np.dtype[Any]:
    """The dtype of `numpy.dtype(code, ...)` with its state `(version, byte order, ...)`."""
    code = stub.arguments[0] if is_kind(stub, DTYPE) and stub.arguments else None
    if type(code) is not str or code not in ITEM_TYPES:
        raise RefusedError('an array whose items are not plain numbers')
    order = stub.state[1] if isinstance(stub.state, tuple) and len(stub.state) > 1 else '='
    if type(order) is not str or order not in ('<', '>', '|', '='):
        raise RefusedError('an array of unknown byte order')
    dtype: np.dtype[Any] = np.dtype(order + code)
    return dtype


def _content(value: Value) -> bytes:
    """Bytes, however the pickler wrote them."""
    if is_kind(value, ENCODE) and value.arguments[1:] == ('latin1',):
        value = value.arguments[0]
    elif is_kind(value, BYTES) and not value.arguments:
        value = b''
    if isinstance(value, str):
        try:
            value = value.encode('latin-1')
        except UnicodeEncodeError:
            raise RefusedError('an array of text') from None
    if not isinstance(value, bytes):
        raise RefusedError('an array of something else than numbers')
    return value


def _check_instructions(data: bytes) -> None:
    """Count and look at the instructions before any is followed; lengths must fit the data."""
    for count, (opcode, _, _) in enumerate(pickletools.genops(data)):
        if count >= MAX_OPCODES:
            raise RefusedError(f'more than {MAX_OPCODES} pickle instructions')
        if opcode.name not in INSTRUCTIONS:
            raise RefusedError(f'instruction {opcode.name}, which plain data has no use for')


class _Unpickler(pickle._Unpickler):
    """Python's own, but what is called is remembered, and nothing is hashed that could be deep."""

    stack: list[Value]
    pop_mark: Callable[[], list[Value]]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return Name(ALLOWED[module, name])
        except KeyError:
            text = f'it names {module[:60]}.{name[:60]}, which plain data has no use for'
            raise RefusedError(text) from None

    def make(self) -> None:
        """REDUCE and NEWOBJ."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise RefusedError('a call of something that is no class')
        self.stack.append(Stub(called.kind, arguments))

    def build(self) -> None:
        state, stub = self.stack.pop(), self.stack[-1]
        if not isinstance(stub, Stub):
            raise RefusedError('a state of something that is no object')
        stub.state = state

    def empty_set(self) -> None:
        self.stack.append(Stub(SET))

    def add_items(self) -> None:
        """Nobody asks what is in a set."""
        self.pop_mark()

    def new_dict(self) -> None:
        values = self.pop_mark()
        self.stack.append({})
        self.update(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def set_items(self) -> None:
        self.update(self.pop_mark())

    def update(self, pairs: list[Value]) -> None:
        keys, values = pairs[::2], pairs[1::2]
        if not all(type(key) in (str, bytes, int) for key in keys):
            raise RefusedError('a dictionary key that is neither text nor a number')
        if type(self.stack[-1]) is not dict:
            raise RefusedError('an item of something that is no dictionary')
        self.stack[-1].update(zip(keys, values, strict=True))

    dispatch |= {
        pickle.REDUCE[0]: make,
        pickle.NEWOBJ[0]: make,
        pickle.BUILD[0]: build,
        pickle.EMPTY_SET[0]: empty_set,
        pickle.ADDITEMS[0]: add_items,
        pickle.DICT[0]: new_dict,
        pickle.SETITEM[0]: set_item,
        pickle.SETITEMS[0]: set_items,
    }
