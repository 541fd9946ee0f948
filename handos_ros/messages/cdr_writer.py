"""Writes CDR by hand, for messages whose classes would cost an object per point."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

HEADER = b'\x00\x01\x00\x00'  # plain CDR, little endian


class CdrWriter:
    """Appends fields in order; each is aligned to its size from the end of the header."""

    def __init__(self) -> None:
        self._raw = bytearray(HEADER)

    def number(self, code: str, value: float) -> None:
        """One number; `code` is struct's: 'B', 'i', 'I', 'f' or 'd'."""
        self.numbers(code, value)

    def numbers(self, code: str, *values: float) -> None:
        """Fields of the same kind that follow each other."""
        self._align(struct.calcsize(code))
        self._raw += struct.pack(f'<{len(values)}{code}', *values)

    def string(self, text: str) -> None:
        encoded = text.encode() + b'\0'
        self.number('I', len(encoded))
        self._raw += encoded

    def sequence(self, values: Any, dtype: str, width: int) -> None:
        """A sequence of structs of `width` equal numbers: values [N,width]."""
        items = np.ascontiguousarray(values, dtype).reshape(-1, width)
        self.number('I', len(items))
        if len(items):
            self._align(items.dtype.itemsize)
            self._raw += items.data.cast('B')

    def finish(self) -> bytes:
        """The message, padded to a multiple of four."""
        self._align(4)
        return bytes(self._raw)

    def _align(self, size: int) -> None:
        self._raw += bytes(-(len(self._raw) - len(HEADER)) % size)
