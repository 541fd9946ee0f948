"""Two nodes in one executor, for tests of the runtime itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

STRING = 'std_msgs/msg/String'


class Bench:
    """Nodes in one executor."""

    def __init__(self, ros: Any, *names: str) -> None:
        self.ros = ros
        self.nodes = [ros.Node(name) for name in names]
        self.executor = ros.SingleThreadedExecutor()
        for node in self.nodes:
            self.executor.add_node(node)

    def spin_until(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, 'timed out'
            self.executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()


def text(ros: Any, value: str) -> Any:
    return ros.message_type(STRING)(data=value)
