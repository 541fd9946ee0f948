"""Serving a node as every command does: until Ctrl-C or a signal, and then all is taken down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from handos_ros.runtime import (
    ExternalShutdownException,
    Node,
    SingleThreadedExecutor,
    try_shutdown,
)


@contextmanager
def serving(node: Node) -> Iterator[SingleThreadedExecutor]:
    """An executor of the node; an interrupt ends the block quietly, and any end the node."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        yield executor
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        node.destroy_node()
        try_shutdown()
