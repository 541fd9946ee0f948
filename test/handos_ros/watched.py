"""A camera and a node as processes of their own, and what the node says and sends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from handos_model.types import TrackState

HERE = Path(__file__).resolve().parent
PATIENCE_S = 60.0
PROMISED_S = 5.0  # what failed works again
# What rmw_cyclonedds sends by default: an image of 1280x720 is two thousand fragments.
SMALL_FRAGMENTS = (
    '<CycloneDDS><Domain><General><MaxMessageSize>14720B</MaxMessageSize>'
    '<FragmentSize>1344B</FragmentSize></General></Domain></CycloneDDS>'
)


class Watched:
    """Runs both, and listens in the test's own process, in the same domain."""

    def __init__(
        self, ros: Any, width: int = 64, height: int = 48, rate_hz: float = 20.0, dds: str = ''
    ) -> None:
        self._size = (str(width), str(height), str(rate_hz))
        self._environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CYCLONEDDS_URI': dds}
        self._processes: list[subprocess.Popen[str]] = []
        self.node = self.start_node()
        self.camera = self.start_camera()
        self._probe = ros.Node('probe')
        self._executor = ros.SingleThreadedExecutor()
        self._executor.add_node(self._probe)
        self.hands_at_s: list[float] = []
        self.stamps_s: list[float] = []
        self.said: list[tuple[str, str]] = []  # name of the status, its message
        self.values: dict[str, str] = {}
        for type_name, topic, callback in (
            ('handos/msg/HandMeshArray', '/handos/hands', self._on_hands),
            ('diagnostic_msgs/msg/DiagnosticArray', '/diagnostics', self._on_diagnostics),
        ):
            message_type = ros.message_type(type_name)
            self._probe.create_subscription(
                message_type, topic, callback, ros.QoSProfile(depth=10)
            )

    def start_node(self) -> subprocess.Popen[str]:
        return self._start('run_faulty_node.py')

    def start_camera(self) -> subprocess.Popen[str]:
        return self._start('run_camera.py', *self._size)

    def tell_camera(self, **changes: Any) -> None:
        """Change what it sends: fields of run_camera.Sent."""
        assert self.camera.stdin is not None
        self.camera.stdin.write(json.dumps(changes) + '\n')
        self.camera.stdin.flush()

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(HERE / program), *arguments],
            env=self._environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._processes.append(process)
        return process

    def _on_hands(self, message: Any) -> None:
        if any(hand.state != TrackState.LOST for hand in message.hands):
            self.hands_at_s.append(time.monotonic())
            self.stamps_s.append(message.header.stamp.sec + message.header.stamp.nanosec / 1e9)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            self.said.append((status.name.split(': ')[1], status.message))
            self.values |= {pair.key: pair.value for pair in status.values}

    def spin_for(self, seconds: float) -> None:
        self.spin_until(lambda: False, seconds)

    def spin_until(self, condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> bool:
        """Whether the condition held in time."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def hears(self, count: int = 10, timeout_s: float = PATIENCE_S) -> bool:
        """Whether so many images more are processed."""
        wanted = len(self.hands_at_s) + count
        return self.spin_until(lambda: len(self.hands_at_s) >= wanted, timeout_s)

    def says(self, name: str, words: str, timeout_s: float = PROMISED_S) -> bool:
        """Whether diagnostics say so from now on."""
        self.said.clear()
        return self.spin_until(lambda: self.said_so(name, words), timeout_s)

    def said_so(self, name: str, words: str) -> bool:
        return any(words in text for status, text in self.said if status == name)

    def close(self) -> None:
        self._executor.shutdown()
        self._probe.destroy_node()
        for process in self._processes:
            process.kill()
            process.communicate()
