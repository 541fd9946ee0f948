"""What follows `--ros-args` on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from handos_model.errors import UserError


class ArgumentError(UserError):
    """A ROS argument that cannot be understood; the message says which."""


@dataclass
class RosArguments:
    """Parsed arguments; a rule or parameter may be for one node only (`node:name:=value`)."""

    node_name: str | None = None
    namespace: str | None = None
    log_level: str = 'info'
    remaps: list[tuple[str, str]] = field(default_factory=list)
    parameters: list[tuple[str, str, Any]] = field(
        default_factory=list
    )  # node pattern, name, value
    rest: list[str] = field(default_factory=list)  # what is not ROS's

    def parameters_for(self, full_node_name: str) -> dict[str, Any]:
        """Values for one node; a later one wins."""
        name = full_node_name.rsplit('/', 1)[-1]
        return {
            key: value
            for pattern, key, value in self.parameters
            if _matches(pattern, full_node_name) or pattern in (name, f'/{name}')
        }


def parse(arguments: Sequence[str]) -> RosArguments:
    """Split the command line into ROS's arguments and the rest.

    Raises ArgumentError for a rule, parameter or file that cannot be read.
    """
    parsed = RosArguments()
    words = list(arguments)
    in_ros = False
    while words:
        word = words.pop(0)
        if not in_ros:
            in_ros = word == '--ros-args'
            if not in_ros:
                parsed.rest.append(word)
        elif word == '--':
            in_ros = False
        elif word in ('-r', '--remap'):
            _remap(parsed, _value(word, words))
        elif word in ('-p', '--param'):
            _parameter(parsed, _value(word, words))
        elif word == '--params-file':
            _parameter_file(parsed, Path(_value(word, words)))
        elif word == '--log-level':
            parsed.log_level = _value(word, words).split(':=')[-1].lower()
        elif word in ('-e', '--enclave', '--log-config-file'):
            _value(word, words)  # for rclpy; nothing here has enclaves or a logging file
        elif word.startswith(('--enable-', '--disable-')):
            continue  # rclpy's logging switches
        elif word != '--ros-args':
            raise ArgumentError(f'unknown ROS argument {word!r} after --ros-args')
    return parsed


def _value(option: str, words: list[str]) -> str:
    if not words:
        raise ArgumentError(f'{option} needs a value')
    return words.pop(0)


def _remap(parsed: RosArguments, rule: str) -> None:
    source, separator, target = rule.partition(':=')
    if not separator or not source or not target:
        raise ArgumentError(f'remapping {rule!r} is not of the form from:=to')
    source = source.rsplit(':', 1)[-1]
    if source == '__ns':
        parsed.namespace = target
    elif source in ('__node', '__name'):
        parsed.node_name = target
    else:
        parsed.remaps.append((source, target))


def _parameter(parsed: RosArguments, rule: str) -> None:
    name, separator, text = rule.partition(':=')
    if not separator or not name:
        raise ArgumentError(f'parameter {rule!r} is not of the form name:=value')
    node, _, name = name.rpartition(':')
    try:
        parsed.parameters.append((node or '/**', name, yaml.safe_load(text)))
    except yaml.YAMLError as error:
        raise ArgumentError(f'the value of parameter {name!r} is no YAML: {error}') from error


def _parameter_file(parsed: RosArguments, path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArgumentError(f'cannot read the parameter file {path}: {error}') from error
    if not isinstance(content, dict):
        raise ArgumentError(f'{path} holds no parameters: it must be node: ros__parameters: ...')
    _nodes(parsed, content, '', path)


def _nodes(parsed: RosArguments, content: dict[str, Any], prefix: str, path: Path) -> None:
    for key, value in content.items():
        if not isinstance(value, dict):
            raise ArgumentError(f'{path}: {prefix}{key} must be a mapping with ros__parameters')
        if key == 'ros__parameters':
            _flatten(parsed, prefix or '/**', value, '')
        else:
            _nodes(parsed, value, f'{prefix.rstrip("/")}/{key.lstrip("/")}', path)


def _flatten(parsed: RosArguments, node: str, values: dict[str, Any], prefix: str) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _flatten(parsed, node, value, f'{prefix}{key}.')
        else:
            parsed.parameters.append((node, f'{prefix}{key}', value))


def _matches(pattern: str, full_node_name: str) -> bool:
    """`/**` is any number of name parts, `/*` exactly one."""
    if not pattern.startswith('/'):
        pattern = f'/{pattern}'
    parts, wanted = full_node_name.split('/')[1:], pattern.split('/')[1:]
    return _parts_match(parts, wanted)


def _parts_match(parts: list[str], wanted: list[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == '**':
        return any(_parts_match(parts[skip:], wanted[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _parts_match(parts[1:], wanted[1:])
