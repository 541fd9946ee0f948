"""A pickle as data: no class of it is imported, nothing of it is called.

A real unpickler runs somebody else's pickle as a program. This machine only keeps its stack and
memo: the classes that MANO's file needs become `Stub`s that remember their arguments, and every
other name ends the reading. Work and memory are bounded by the pickle's size and MAX_OPCODES.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

MAX_OPCODES = 200_000  # MANO's has some hundreds

DTYPE, NDARRAY, RECONSTRUCT, CSC_MATRIX, CH, SELECT, SET = range(7)
GLOBALS = {
    ('numpy', 'dtype'): DTYPE,
    ('numpy', 'ndarray'): NDARRAY,
    ('numpy.core.multiarray', '_reconstruct'): RECONSTRUCT,
    ('numpy._core.multiarray', '_reconstruct'): RECONSTRUCT,
    ('scipy.sparse.csc', 'csc_matrix'): CSC_MATRIX,
    ('scipy.sparse._csc', 'csc_matrix'): CSC_MATRIX,
    ('chumpy.ch', 'Ch'): CH,
    ('chumpy.reordering', 'Select'): SELECT,
    ('__builtin__', 'set'): SET,
    ('builtins', 'set'): SET,
}

Value: TypeAlias = Any  # whatever a pickle can hold, with Stub and Global for its objects


class RefusedError(Exception):
    """Why the pickle is refused, in words that continue 'it is not a MANO model: ...'."""


@dataclass(frozen=True)
class Global:
    """One of the seven names, not the thing."""

    kind: int


@dataclass(eq=False)
class Stub:
    """An object that was not made: its class, the arguments of its making, its state."""

    kind: int
    arguments: Value
    state: Value = None


class Machine:
    """The pickle's stack, marks and memo; `run` returns what STOP leaves."""

    def __init__(self) -> None:
        self.stack: list[Value] = []
        self.marks: list[int] = []
        self.memo: dict[int, Value] = {}

    def run(self, data: bytes) -> Value:
        for count, (name, argument) in enumerate(opcodes(data)):
            if count >= MAX_OPCODES:
                raise RefusedError(f'more than {MAX_OPCODES} pickle instructions')
            if name == 'STOP':
                return self.pop()
            if name in PUSHES:
                self.stack.append(argument)
            elif name in ACTIONS:
                ACTIONS[name](self, argument)
            elif name not in IGNORED:
                raise RefusedError(f'pickle instruction {name}, which MANO has no use for')
        raise RefusedError('it has no end')

    def pop(self) -> Value:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise RefusedError('pickle stack underflow')
        return self.stack.pop()

    def pop_to_mark(self) -> list[Value]:
        if not self.marks:
            raise RefusedError('pickle mark missing')
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def top(self, kind: type) -> Value:
        value = self.pop()
        self.stack.append(value)
        if type(value) is not kind:
            raise RefusedError(f'a {kind.__name__} expected on the pickle stack')
        return value

    def mark(self, _: Value) -> None:
        self.marks.append(len(self.stack))

    def discard(self, _: Value) -> None:
        self.pop()

    def discard_to_mark(self, _: Value) -> None:
        self.pop_to_mark()

    def duplicate(self, _: Value) -> None:
        value = self.pop()
        self.stack += [value, value]

    def put(self, index: Value) -> None:
        value = self.pop()
        self.stack.append(value)
        self.memo[len(self.memo) if index is None else index] = value

    def get(self, index: Value) -> None:
        if index not in self.memo:
            raise RefusedError('pickle memo entry missing')
        self.stack.append(self.memo[index])

    def push_tuple(self, length: int) -> None:
        values = [self.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(values)))

    def append(self, _: Value) -> None:
        value = self.pop()
        self.top(list).append(value)

    def appends(self, _: Value) -> None:
        values = self.pop_to_mark()
        self.top(list).extend(values)

    def set_item(self, _: Value) -> None:
        value, key = self.pop(), self.pop()
        update(self.top(dict), [key, value])

    def set_items(self, _: Value) -> None:
        values = self.pop_to_mark()
        update(self.top(dict), values)

    def name_global(self, argument: Value) -> None:
        module, _, name = str(argument).partition(' ')
        if (module, name) not in GLOBALS:
            raise RefusedError(f'it names {module[:60]}.{name[:60]}, which MANO has no use for')
        self.stack.append(Global(GLOBALS[module, name]))

    def stack_global(self, _: Value) -> None:
        name, module = self.pop(), self.pop()
        self.name_global(f'{module} {name}' if type(module) is type(name) is str else '? ?')

    def make(self, _: Value) -> None:
        """REDUCE and NEWOBJ: remember the call."""
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, Global) or not isinstance(arguments, tuple):
            raise RefusedError('a call of something that is no class')
        self.stack.append(Stub(called.kind, arguments))

    def add_items(self, _: Value) -> None:
        """Nobody asks what is in a set."""
        self.pop_to_mark()
        self.top(Stub)

    def build(self, _: Value) -> None:
        state = self.pop()
        self.top(Stub).state = state


def update(target: dict[Value, Value], pairs: list[Value]) -> None:
    keys, values = pairs[::2], pairs[1::2]
    if len(keys) != len(values) or not all(type(key) in (str, bytes, int) for key in keys):
        raise RefusedError('a dictionary key that is neither text nor a number')
    target.update(zip(keys, values, strict=True))


def opcodes(data: bytes) -> Iterator[tuple[str, Value]]:
    """Names and arguments of the pickle's instructions, parsed but not followed."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            yield opcode.name, argument
    except (ValueError, KeyError, IndexError, OverflowError, struct.error) as error:
        raise RefusedError(f'damaged pickle ({str(error)[:80]})') from None


PUSHES = frozenset(
    (
        *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'),
        *('STRING', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'),
        *('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
    )
)
IGNORED = frozenset(('PROTO', 'FRAME'))
ACTIONS: dict[str, Callable[[Machine, Value], None]] = {
    'NONE': lambda machine, _: machine.stack.append(None),
    'NEWTRUE': lambda machine, _: machine.stack.append(True),
    'NEWFALSE': lambda machine, _: machine.stack.append(False),
    'EMPTY_LIST': lambda machine, _: machine.stack.append([]),
    'EMPTY_DICT': lambda machine, _: machine.stack.append({}),
    'EMPTY_SET': lambda machine, _: machine.stack.append(Stub(SET, ())),
    'EMPTY_TUPLE': lambda machine, _: machine.stack.append(()),
    'TUPLE1': lambda machine, _: machine.push_tuple(1),
    'TUPLE2': lambda machine, _: machine.push_tuple(2),
    'TUPLE3': lambda machine, _: machine.push_tuple(3),
    'TUPLE': lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    'LIST': lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    'APPEND': Machine.append,
    'APPENDS': Machine.appends,
    'SETITEM': Machine.set_item,
    'SETITEMS': Machine.set_items,
    'ADDITEMS': Machine.add_items,
    'MARK': Machine.mark,
    'POP': Machine.discard,
    'POP_MARK': Machine.discard_to_mark,
    'DUP': Machine.duplicate,
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), Machine.put),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), Machine.get),
    'GLOBAL': Machine.name_global,
    'STACK_GLOBAL': Machine.stack_global,
    'REDUCE': Machine.make,
    'NEWOBJ': Machine.make,
    'BUILD': Machine.build,
}
