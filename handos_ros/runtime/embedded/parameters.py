"""A node's parameters: declared with a descriptor, checked, and set with rclpy's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rosbags.typesys.store import Typestore

TYPE_NAMES = {bool: 'BOOL', int: 'INTEGER', float: 'DOUBLE', str: 'STRING', list: 'STRING_ARRAY'}


class ParameterNotDeclaredException(Exception):  # noqa: N818 - rclpy's name
    """A parameter that the node never declared."""


class InvalidParameterValueException(Exception):  # noqa: N818 - rclpy's name
    """A value that the descriptor or the node refuses."""


class InvalidParameterTypeException(Exception):  # noqa: N818 - rclpy's name
    """A value of another type than the default's."""


class Parameter:
    """A name and its value; the type is the value's."""

    def __init__(self, name: str, type_: None = None, value: Any = None) -> None:
        self.name = name
        self.value = value


OnSet = Callable[[list[Parameter]], Any]  # returns SetParametersResult


class ParameterServer:
    """What `Node` delegates its parameter methods to."""

    def __init__(self, store: Typestore, overrides: dict[str, Any]) -> None:
        self._store = store
        self._overrides = overrides
        self._parameters: dict[str, Parameter] = {}
        self._descriptors: dict[str, Any] = {}
        self._on_set: list[OnSet] = []

    def declare(self, name: str, value: Any, descriptor: Any = None) -> Parameter:
        """Declare with a default; the command line's or file's value takes its place.

        Raises InvalidParameterTypeException or InvalidParameterValueException for such a value.
        """
        descriptor = descriptor or self._store.types['rcl_interfaces/msg/ParameterDescriptor']()
        override = self._overrides.get(name, value)
        if not _same_type(override, value):
            raise InvalidParameterTypeException(
                f"Trying to set parameter '{name}' to '{override}' of type "
                f"'{TYPE_NAMES.get(type(override), 'unknown')}', expecting type "
                f"'{TYPE_NAMES[type(value)]}'"
            )
        parameter = Parameter(name, value=override)
        reason = _out_of_range(parameter, descriptor) or self._refused([parameter])
        if reason:
            raise InvalidParameterValueException(f"Invalid value for parameter '{name}': {reason}")
        self._parameters[name] = parameter
        self._descriptors[name] = descriptor
        return parameter

    def has(self, name: str) -> bool:
        return name in self._parameters

    def get(self, name: str) -> Parameter:
        if name not in self._parameters:
            raise ParameterNotDeclaredException(f"parameter '{name}' is not declared")
        return self._parameters[name]

    def override_of(self, name: str, default: Any) -> Any:
        return self._overrides.get(name, default)

    def add_on_set(self, callback: OnSet) -> None:
        self._on_set.insert(0, callback)

    def set(self, parameters: Iterable[Parameter]) -> list[Any]:
        """One SetParametersResult each; a refused one keeps its old value."""
        result_type: Any = self._store.types['rcl_interfaces/msg/SetParametersResult']
        results = []
        for parameter in parameters:
            old = self.get(parameter.name)
            descriptor = self._descriptors[parameter.name]
            if descriptor.read_only:
                reason = f"parameter '{parameter.name}' is read-only"
            elif not _same_type(parameter.value, old.value):
                reason = f"wrong type for parameter '{parameter.name}'"
            else:
                reason = _out_of_range(parameter, descriptor) or self._refused([parameter])
            if not reason:
                self._parameters[parameter.name] = parameter
            results.append(result_type(successful=not reason, reason=reason))
        return results

    def _refused(self, parameters: list[Parameter]) -> str:
        for callback in self._on_set:
            result = callback(parameters)
            if not result.successful:
                return result.reason or 'refused'
        return ''


def _same_type(value: Any, other: Any) -> bool:
    return type(value) is type(other)


def _out_of_range(parameter: Parameter, descriptor: Any) -> str:
    for bounds in [*descriptor.floating_point_range, *descriptor.integer_range]:
        if not bounds.from_value <= parameter.value <= bounds.to_value:
            return f'{parameter.value} is not in [{bounds.from_value}, {bounds.to_value}]'
    return ''
