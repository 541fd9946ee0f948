"""System time under rclpy's names."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rosbags.typesys.store import Typestore


@dataclass(frozen=True, order=True)
class Time:
    """A point in time, nanoseconds since 1970."""

    nanoseconds: int
    store: Typestore

    def to_msg(self) -> Any:
        seconds, nanoseconds = divmod(self.nanoseconds, 10**9)
        return self.store.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)  # type: ignore[call-arg]


class Clock:
    """The system's clock; simulated time needs rclpy."""

    def __init__(self, store: Typestore) -> None:
        self._store = store

    def now(self) -> Time:
        return Time(time.time_ns(), self._store)


class Timer:
    """Calls back every period; a late call does not make up for missed ones."""

    def __init__(self, period_s: float, callback: Any) -> None:
        self.period_s = period_s
        self.callback = callback
        self.canceled = False
        self.due_s = time.monotonic() + period_s

    def cancel(self) -> None:
        self.canceled = True

    def reset(self) -> None:
        self.canceled = False
        self.due_s = time.monotonic() + self.period_s

    def is_ready(self) -> bool:
        return not self.canceled and time.monotonic() >= self.due_s

    def execute(self) -> None:
        self.due_s = max(self.due_s + self.period_s, time.monotonic())
        self.callback()
