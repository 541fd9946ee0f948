"""ROS names: expansion, remapping and what they are called on the wire."""

from __future__ import annotations

import re
from collections.abc import Sequence

VALID = re.compile(r'^(/|~/?)?([A-Za-z_][A-Za-z0-9_]*)?(/[A-Za-z_][A-Za-z0-9_]*)*$')


class InvalidTopicName(ValueError):  # noqa: N818 - rclpy's kind of name
    """A name that ROS does not allow."""


def expand(name: str, node_name: str, namespace: str) -> str:
    """The full name of a relative, private (`~/`) or absolute one."""
    if not name or not VALID.match(name) or name.endswith('/'):
        raise InvalidTopicName(f'{name!r} is no valid ROS name')
    prefix = namespace.rstrip('/')
    if name.startswith('/'):
        return name
    if name == '~' or name.startswith('~'):
        return f'{prefix}/{node_name}/{name[1:].lstrip("/")}'.rstrip('/')
    return f'{prefix}/{name}'


def remap(name: str, node_name: str, namespace: str, rules: Sequence[tuple[str, str]]) -> str:
    """The full name after the first remapping rule that matches; rules are expanded alike."""
    full = expand(name, node_name, namespace)
    for source, target in rules:
        if expand(source, node_name, namespace) == full:
            return expand(target, node_name, namespace)
    return full
