"""Graphs that are opened while the first frame is on its way already."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from handos_model.backends.base import Graph


class _Turns:
    """One thread for the process: OpenVINO changes the process' locale while it compiles, and two
    graphs that are compiled at once leave it changed."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, 'register_at_fork'):  # a child has no such thread
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix='handos-open')


_TURNS = _Turns()


def in_turn(make: Callable[[], Graph]) -> Graph:
    """What `make` returns or raises, made after all that is being opened."""
    return _TURNS.thread.submit(make).result()


class OpeningGraph:
    """A graph that `make` opens and warms in the background; its first use waits for that."""

    def __init__(self, make: Callable[[], Graph]) -> None:
        self._opened = _TURNS.thread.submit(make)

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once. Raises what `make` raised."""
        return self._opened.result().infer(inputs)
