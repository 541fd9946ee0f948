"""DDS type descriptions from field definitions, in ROS 2's naming: pkg::msg::dds_::Name_.

Cyclone DDS matches endpoints and checks incoming bytes by them; the bytes themselves are made and
read by `cdr`, because cyclonedds-python walks over arrays element by element.
"""

from __future__ import annotations

from typing import Any

from cyclonedds.idl import IdlStruct, make_idl_struct, types
from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

BASES: dict[str, Any] = {
    'bool': bool,
    'byte': types.uint8,
    'char': types.uint8,
    'octet': types.uint8,
    'string': str,
    'wstring': str,
    'int8': types.int8,
    'uint8': types.uint8,
    'int16': types.int16,
    'uint16': types.uint16,
    'int32': types.int32,
    'uint32': types.uint32,
    'int64': types.int64,
    'uint64': types.uint64,
    'float32': types.float32,
    'float64': types.float64,
}


def dds_type_name(type_name: str) -> str:
    """`sensor_msgs/msg/Image` -> `sensor_msgs::msg::dds_::Image_`."""
    package, kind, name = type_name.split('/')
    return f'{package}::{kind}::dds_::{name}_'


def ros_type_name(dds_name: str) -> str:
    """The inverse of `dds_type_name`; other names come back as they are."""
    return dds_name.replace('::dds_::', '/').replace('::', '/').removesuffix('_')


class DdsTypes:
    """Builds each type once; a type that is part of others is the same class in all of them."""

    def __init__(self, store: Typestore) -> None:
        self.store = store
        self._built: dict[str, type[IdlStruct]] = {}

    def __getitem__(self, type_name: str) -> type[IdlStruct]:
        if type_name not in self._built:
            _, fields = self.store.fielddefs[type_name]
            self._built[type_name] = make_idl_struct(
                type_name.replace('/', '_'),
                dds_type_name(type_name),
                {name: self._field(description) for name, description in fields},
            )
        return self._built[type_name]

    def _field(self, description: Any) -> Any:
        kind, detail = description
        if kind == Nodetype.NAME:
            return self[detail]
        if kind == Nodetype.BASE:
            name, bound = detail
            return types.bounded_str[bound] if name == 'string' and bound else BASES[name]
        item, length = detail
        if kind == Nodetype.ARRAY:
            return types.array[self._field(item), length]
        return (
            types.sequence[self._field(item), length]
            if length
            else types.sequence[self._field(item)]
        )
