"""What is asked of a message, whoever made its class: rclpy, the embedded runtime, a recording."""

from __future__ import annotations

from typing import Protocol


class Time(Protocol):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(Protocol):
    """std_msgs/Header."""

    stamp: Time
    frame_id: str


class Stamped(Protocol):
    """A message that says when and in which frame it was taken."""

    @property
    def header(self) -> Header: ...
