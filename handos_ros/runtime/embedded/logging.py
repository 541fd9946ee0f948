"""A node's logger: a line on stderr in ROS 2's format, and a message on /rosout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

LEVELS = {'debug': 10, 'info': 20, 'warn': 30, 'error': 40, 'fatal': 50}


class Logger:
    """`publish(level, text)` sends to /rosout."""

    def __init__(
        self, name: str, minimum_level: str, publish: Callable[[int, str], None] | None = None
    ) -> None:
        self.name = name
        self._minimum = LEVELS.get(minimum_level, LEVELS['info'])
        self._publish = publish

    def debug(self, text: str) -> None:
        self._log('debug', text)

    def info(self, text: str) -> None:
        self._log('info', text)

    def warning(self, text: str) -> None:
        self._log('warn', text)

    def error(self, text: str) -> None:
        self._log('error', text)

    def _log(self, level: str, text: str) -> None:
        if LEVELS[level] < self._minimum:
            return
        print(f'[{level.upper()}] [{time.time():.6f}] [{self.name}]: {text}', file=sys.stderr)
        if self._publish is not None:
            self._publish(LEVELS[level], text)
