"""One thread that serves timers and subscriptions, waiting on a DDS WaitSet in between."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from cyclonedds.core import (
    GuardCondition,
    InstanceState,
    ReadCondition,
    SampleState,
    ViewState,
    WaitSet,
)
from cyclonedds.internal import DDS

from handos_ros.runtime.embedded.context import get_default_context
from handos_ros.runtime.embedded.endpoints import Subscription
from handos_ros.runtime.embedded.node import Node
from handos_ros.runtime.embedded.wire import transport

LONGEST_WAIT_S = 0.1  # a signal, or an endpoint made by another thread, is seen after this
ANY = ViewState.Any | SampleState.Any | InstanceState.Any


class ExternalShutdownException(Exception):  # noqa: N818 - rclpy's name
    """The context was shut down while an executor was spinning."""


class SingleThreadedExecutor:
    """Callbacks run one at a time in the thread that spins."""

    def __init__(self, *, context: Any = None) -> None:
        self._context = context or get_default_context()
        self._nodes: list[Node] = []
        self._waitset = WaitSet(self._context.participant)
        self._conditions: dict[Subscription, ReadCondition] = {}
        self._wake = GuardCondition(self._context.participant)
        self._waitset.attach(self._wake)
        self._wait = DDS._dll_handle.dds_waitset_wait
        self._wait.argtypes = [ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]

    def add_node(self, node: Node) -> bool:
        if node in self._nodes:
            return False
        self._nodes.append(node)
        return True

    def remove_node(self, node: Node) -> None:
        if node in self._nodes:
            self._nodes.remove(node)

    def spin(self) -> None:
        """Serve until the context stops."""
        while self._context.ok():
            self.spin_once()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for work, at most `timeout_sec`, and do what is ready: each callback once."""
        self._attach_subscriptions()
        timers = [timer for node in self._nodes for timer in node.timers if not timer.canceled]
        wait_s = LONGEST_WAIT_S if timeout_sec is None else timeout_sec
        if timers:
            due_s = min(timer.due_s for timer in timers) - time.monotonic()
            wait_s = min(wait_s, max(0.0, due_s))
        self._wait(self._waitset._ref, None, 0, int(wait_s * 1e9))
        for timer in timers:
            if timer.is_ready():
                timer.execute()
        for subscription in [s for node in self._nodes for s in node.subscriptions]:
            if self._context.ok():
                subscription.execute()

    def shutdown(self) -> None:
        self._nodes.clear()
        if self._context.participant is not None:
            self._attach_subscriptions()
            self._waitset.detach(self._wake)
            transport.delete(self._wake)
            transport.delete(self._waitset)

    def _attach_subscriptions(self) -> None:
        current = {s for node in self._nodes for s in node.subscriptions}
        for subscription in self._conditions.keys() - current:
            condition = self._conditions.pop(subscription)
            gone = (condition, subscription.reader.entity)  # deleted; DDS has detached them itself
            self._waitset.attached = [
                pair for pair in self._waitset.attached if pair[0] not in gone
            ]
            transport.delete(condition)
        for subscription in current - self._conditions.keys():
            condition = ReadCondition(subscription.reader.entity, ANY)
            self._conditions[subscription] = condition
            self._waitset.attach(condition)
            self._waitset.attach(subscription.reader.entity)


def spin(node: Node) -> None:
    """Serve one node until the context stops."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    finally:
        executor.shutdown()
