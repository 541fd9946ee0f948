"""Message classes made at run time from field definitions: rosbags' typestore and our .msg files.

A class behaves as rclpy's do: every field has a default, keyword arguments set some of them, and
numeric arrays take lists, ndarrays and array.array. A numeric array is stored as an ndarray, which
is what rosbags serialises without walking over its elements.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from handos_ros.runtime.embedded.wire.vision_msgs import VISION_MSGS

NOT_NUMERIC = ('string', 'wstring')
UNSIGNED_BYTES = ('byte', 'char', 'octet')
# rosbags' definitions carry no default values; of the messages here only this one has any.
FIELD_DEFAULTS = {('geometry_msgs/msg/Quaternion', 'w'): 1.0}


class Message:
    """Base of the generated classes."""

    __slots__ = ()
    __msgtype__: ClassVar[str]
    defaults: ClassVar[tuple[tuple[str, Callable[[], Any]], ...]]

    def __init__(self, *values: Any, **named_values: Any) -> None:
        """Fields in the order of their definition (rosbags' call) or by name (rclpy's)."""
        for index, (name, default) in enumerate(self.defaults):
            if index < len(values):
                setattr(self, name, values[index])
            else:
                setattr(self, name, named_values.pop(name) if name in named_values else default())
        if named_values or len(values) > len(self.defaults):
            raise AttributeError(f'{self.__msgtype__} has no field {[*named_values, *values]}')

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        """Names of the fields; the types are not told."""
        return {name: '' for name, _ in cls.defaults}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        return all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name, _ in self.defaults
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ', '.join(f'{name}={getattr(self, name)!r}' for name, _ in self.defaults)
        return f'{self.__msgtype__}({fields})'


class NumericArray:
    """A field that holds an ndarray, whatever buffer or list it is given."""

    def __init__(self, slot: str, dtype: np.dtype[Any], length: int | None) -> None:
        self.slot = slot
        self.dtype = dtype
        self.length = length

    def __get__(self, message: Message | None, owner: type) -> Any:
        return self if message is None else getattr(message, self.slot)

    def __set__(self, message: Message, value: Any) -> None:
        if isinstance(value, bytes | bytearray | memoryview):
            value = np.frombuffer(value, self.dtype)
        array = np.ascontiguousarray(value, self.dtype).reshape(-1)
        if self.length is not None and len(array) != self.length:
            raise AssertionError(f'{self.slot[1:]} needs {self.length} values, got {len(array)}')
        setattr(message, self.slot, array)


def message_folder() -> Path:
    """Folder of our .msg files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[3]
    for folder in (package / 'msg', package.parent / 'msg'):
        if any(folder.glob('*.msg')):
            return folder
    raise FileNotFoundError(f'no .msg files beside {package}: install handos-ros again')


def build_typestore() -> Typestore:
    """Definitions of the ROS distribution in ROS_DISTRO (else Jazzy) and of this package."""
    distribution = os.environ.get('ROS_DISTRO', 'jazzy').upper()
    store = get_typestore(Stores.__members__.get(f'ROS2_{distribution}', Stores.ROS2_JAZZY))
    for name, text in VISION_MSGS.items():
        store.register(get_types_from_msg(text, f'vision_msgs/msg/{name}'))
    definitions = {}
    for path in sorted(message_folder().glob('*.msg')):
        definitions.update(get_types_from_msg(path.read_text(), f'handos/msg/{path.stem}'))
    store.register(definitions)
    adopt_message_classes(store)
    return store


def adopt_message_classes(store: Typestore) -> None:
    """Replace rosbags' dataclasses, which have no defaults, by classes that have."""
    for name in list(store.fielddefs):
        if not issubclass(store.types[name], Message):
            store.types[name] = _message_class(store, name)
            store.cache.pop(name, None)


def _message_class(store: Typestore, type_name: str) -> type[Message]:
    constants, fields = store.fielddefs[type_name]
    arrays: dict[str, NumericArray] = {}
    slots = []
    defaults = []
    for name, description in fields:
        array = _numeric_array(f'_{name}', description)
        if array is None:
            slots.append(name)
        else:
            slots.append(array.slot)
            arrays[name] = array
        value = FIELD_DEFAULTS.get((type_name, name))
        defaults.append((name, _default(store, description, value)))
    namespace: dict[str, Any] = {
        '__slots__': tuple(slots),
        '__msgtype__': type_name,
        'defaults': tuple(defaults),
        **{name: value for name, _, value in constants},
        **arrays,
    }
    return type(type_name.split('/')[-1], (Message,), namespace)


def _numeric_array(slot: str, description: Any) -> NumericArray | None:
    kind, detail = description
    if kind not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return None
    (item_kind, item), length = detail
    if item_kind != Nodetype.BASE or item[0] in NOT_NUMERIC:
        return None
    return NumericArray(slot, _dtype(item[0]), length if kind == Nodetype.ARRAY else None)


def _dtype(base: str) -> np.dtype[Any]:
    return np.dtype('uint8' if base in UNSIGNED_BYTES else base)


def _default(store: Typestore, description: Any, value: Any) -> Callable[[], Any]:
    kind, detail = description
    if value is not None:
        return lambda: value
    if kind == Nodetype.NAME:
        return lambda: store.types[detail]()
    if kind == Nodetype.BASE:
        zero: Any = '' if detail[0] in NOT_NUMERIC else _dtype(detail[0]).type(0).item()
        return lambda: zero
    (item_kind, item), length = detail
    count = length if kind == Nodetype.ARRAY else 0
    if item_kind == Nodetype.BASE and item[0] not in NOT_NUMERIC:
        dtype = _dtype(item[0])
        return lambda: np.zeros(count, dtype)
    item_default = _default(store, (item_kind, item), None)
    return lambda: [item_default() for _ in range(count)]
