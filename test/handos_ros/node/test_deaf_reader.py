"""A reader that goes deaf is noticed, said and made to hear again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handos_model.types import TrackState
from handos_ros import runtime
from handos_ros.node.deaf_reader import DeafReader, Remedy

# The faults are put into Cyclone DDS as the embedded runtime holds it.
embedded_alone = pytest.mark.skipif(
    runtime.chosen_runtime() != 'embedded', reason='tests the embedded runtime'
)

HERE = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0
PROMISED_S = 5.0
TORN_S = 2.2  # so long, and a little, run_faulty_node.py loses packets
# What rmw_cyclonedds sends by default: an image of 1280x720 is two thousand fragments.
SMALL_FRAGMENTS = (
    '<CycloneDDS><Domain><General><MaxMessageSize>14720B</MaxMessageSize>'
    '<FragmentSize>1344B</FragmentSize></General></Domain></CycloneDDS>'
)


class Watched:
    """A camera and a node as processes of their own, and what the node says and sends."""

    def __init__(self, ros: Any) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self.node = self._start('run_faulty_node.py')
        self._start('run_camera.py', '1280', '720', '28')
        probe = ros.Node('probe')
        self._executor = ros.SingleThreadedExecutor()
        self._executor.add_node(probe)
        self._probe = probe
        self.hands_at_s: list[float] = []
        self.said: list[tuple[float, str]] = []
        self.values: dict[str, str] = {}
        probe.create_subscription(
            ros.message_type('handos/msg/HandMeshArray'),
            '/handos/hands',
            self._on_hands,
            ros.QoSProfile(depth=10),
        )
        probe.create_subscription(
            ros.message_type('diagnostic_msgs/msg/DiagnosticArray'),
            '/diagnostics',
            self._on_diagnostics,
            ros.QoSProfile(depth=10),
        )

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(HERE / program), *arguments],
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'CYCLONEDDS_URI': SMALL_FRAGMENTS},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def _on_hands(self, message: Any) -> None:
        if any(hand.state != TrackState.LOST for hand in message.hands):
            self.hands_at_s.append(time.monotonic())

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name.endswith(': image'):
                self.said.append((time.monotonic(), status.message))
                self.values = {pair.key: pair.value for pair in status.values}

    def spin_until(self, condition: Any, timeout_s: float = PATIENCE_S) -> bool:
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

    def says_deaf(self) -> bool:
        return any(text.startswith('deaf') for _, text in self.said)

    def close(self) -> None:
        self._executor.shutdown()
        self._probe.destroy_node()
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def watched(ros: Any) -> Iterator[Watched]:
    made = Watched(ros)
    yield made
    made.close()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pass_time(reader: DeafReader, clock: Clock, seconds: float) -> list[Remedy]:
    """What is made anew in that time, while camera_info comes ten times a second."""
    remedies = []
    for _ in range(round(seconds * 10)):
        clock.now_s += 0.1
        reader.pulse()
        remedies.append(reader.next_remedy())
    return [remedy for remedy in remedies if remedy is not None]


def test_the_subscription_is_made_anew_first_then_the_participant(clock: Clock) -> None:
    reader = DeafReader(clock)
    both = [Remedy.SUBSCRIPTION, Remedy.PARTICIPANT]
    assert pass_time(reader, clock, 0.7) == []
    assert pass_time(reader, clock, 0.3) == both[:1]
    assert pass_time(reader, clock, 2.0) == both[1:]
    assert len(pass_time(reader, clock, 10.0)) in (3, 4)  # ever more rarely
    assert 2 < len(pass_time(reader, clock, 600.0)) < 24
    reader.heard()
    assert not reader.deaf and not reader.tried
    assert pass_time(reader, clock, 1.0) == both[:1]


def test_a_camera_that_stops_or_is_slow_is_not_taken_for_a_deaf_reader(clock: Clock) -> None:
    reader = DeafReader(clock)
    clock.now_s += 100.0
    assert not reader.deaf and reader.next_remedy() is None  # camera_info stopped as well
    for _ in range(20):  # an image and its camera_info every three seconds
        clock.now_s += 3.0
        reader.pulse()
        assert reader.next_remedy() is None
        reader.heard()


def test_what_was_tried_counts_in_the_next_participant_too(clock: Clock) -> None:
    reader = DeafReader(clock)
    assert len(pass_time(reader, clock, 3.0)) == 2
    reader.begin()
    assert pass_time(reader, clock, 0.7) == []
    assert pass_time(reader, clock, 2.0) == [Remedy.SUBSCRIPTION]


@embedded_alone
def test_a_reader_that_torn_images_made_deaf_hears_again(watched: Watched) -> None:
    assert watched.hears()
    for _ in range(10):  # sixteen in a row must be torn, which is chance
        watched.node.send_signal(signal.SIGUSR1)
        watched.spin_until(lambda: False, TORN_S)
        if watched.says_deaf():
            break
    assert watched.says_deaf()
    assert watched.hears(timeout_s=PROMISED_S), watched.said[-3:]
    assert int(watched.values['subscription made anew']) > 0


@embedded_alone
def test_a_participant_that_is_deaf_is_made_anew(watched: Watched) -> None:
    assert watched.hears()
    watched.node.send_signal(signal.SIGUSR2)
    assert watched.spin_until(watched.says_deaf, PROMISED_S)
    assert watched.hears(timeout_s=PROMISED_S), watched.said[-3:]
    assert int(watched.values['participant made anew']) > 0
    watched.node.send_signal(signal.SIGINT)
    assert watched.node.wait(PATIENCE_S) == 0
