"""What the node tells about itself: counts and times, and from them the state, why and the fix."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

RECENT_S = 2.0  # a problem is shown for so long after it happened last
WINDOW = 300  # frames over which rates and percentiles are taken


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Status:
    """One line of diagnostics; `message` says why, and what to do."""

    level: Level
    name: str
    message: str
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """Something that went wrong, and when on the monotonic clock."""

    text: str
    at_s: float


class Statistics:
    """Counts and times of frames; every method may be called from any thread.

    Every frame that is received is in the end processed or dropped for one reason.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.received = 0
        self.processed = 0
        self.lost = 0
        self.dropped: Counter[str] = Counter()
        self._problems: dict[str, Problem] = {}
        self._received_at_s: deque[float] = deque(maxlen=WINDOW)
        self._processed_at_s: deque[float] = deque(maxlen=WINDOW)
        self._stages_s: dict[str, deque[float]] = {}

    def frame_received(self) -> None:
        with self._lock:
            self.received += 1
            self._received_at_s.append(self._clock())

    def frames_lost(self, count: int) -> None:
        """Frames that the middleware says were sent and did not arrive."""
        with self._lock:
            self.lost += count

    def frame_dropped(self, reason: str) -> None:
        with self._lock:
            self.dropped[reason] += 1

    def frame_processed(self, stages_s: dict[str, float]) -> None:
        """`stages_s`: seconds by stage; 'age' is from the stamp to the publication."""
        with self._lock:
            self.processed += 1
            self._processed_at_s.append(self._clock())
            for stage, seconds in stages_s.items():
                self._stages_s.setdefault(stage, deque(maxlen=WINDOW)).append(seconds)

    def problem(self, topic: str, text: str) -> None:
        """Remember what went wrong; `topic` is one of input, calibration, depth and backend."""
        with self._lock:
            self._problems[topic] = Problem(text, self._clock())

    def recent_problem(self, topic: str) -> str:
        """The last problem's text unless it is old; empty where there is none."""
        with self._lock:
            problem = self._problems.get(topic)
            recent = problem is not None and self._clock() - problem.at_s < RECENT_S
            return problem.text if recent and problem is not None else ''

    def silence_s(self) -> float:
        """Seconds since the last frame; infinite before the first one."""
        with self._lock:
            return self._clock() - self._received_at_s[-1] if self._received_at_s else np.inf

    def values(self) -> dict[str, str]:
        """Counts, rates and percentiles as diagnostics show them."""
        with self._lock:
            now_s = self._clock()
            values = {
                'frames received': str(self.received),
                'frames lost on the way': str(self.lost),
                'frames processed': str(self.processed),
                'frames dropped': str(self.dropped.total()),
                **{f'dropped: {why}': str(count) for why, count in sorted(self.dropped.items())},
                'input rate [Hz]': f'{_rate(self._received_at_s, now_s):.1f}',
                'output rate [Hz]': f'{_rate(self._processed_at_s, now_s):.1f}',
            }
            for stage, seconds in self._stages_s.items():
                p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1e3
                values[f'{stage} p50/p95/p99 [ms]'] = f'{p50:.1f} / {p95:.1f} / {p99:.1f}'
            return values


@dataclass(frozen=True)
class InputState:
    """What is known of the image topic."""

    topic: str
    active: bool
    publishers: int
    qos_mismatch: bool
    offered_types: tuple[str, ...]
    wanted_type: str
    stale_after_s: float
    deaf: bool = False  # and something was made anew for it
    made_anew: dict[str, int] = field(default_factory=dict)  # what of DDS, and how often


@dataclass(frozen=True)
class BackendState:
    """What is known of the network: 'absent', 'loading', 'ready', 'failed' or 'hanging'."""

    state: str
    detail: str


def diagnose(
    statistics: Statistics, input_state: InputState, backend: BackendState
) -> list[Status]:
    """The node's statuses: image, calibration, depth, backend and frames."""
    return [
        _diagnose_input(statistics, input_state),
        _diagnose_problem(statistics, 'calibration', Level.WARN, 'camera_info is used'),
        _diagnose_problem(statistics, 'depth', Level.WARN, 'no problem'),
        _diagnose_backend(statistics, backend),
        Status(Level.OK, 'frames', 'counts and times', statistics.values()),
    ]


def statuses_to_message(
    types: Callable[[str], Any], stamp: Any, node_name: str, statuses: Sequence[Status]
) -> Any:
    """diagnostic_msgs/DiagnosticArray, named as diagnostic_updater does.

    The hardware is `node_name` with its namespace, which tells several cameras' nodes apart.
    """
    short_name = node_name.rsplit('/', 1)[-1]
    status_type = types('diagnostic_msgs/msg/DiagnosticStatus')
    pair_type = types('diagnostic_msgs/msg/KeyValue')
    levels = [status_type.OK, status_type.WARN, status_type.ERROR, status_type.STALE]
    message = types('diagnostic_msgs/msg/DiagnosticArray')(
        status=[
            status_type(
                level=levels[status.level],
                name=f'{short_name}: {status.name}',
                message=status.message,
                hardware_id=node_name,
                values=[pair_type(key=key, value=value) for key, value in status.values.items()],
            )
            for status in statuses
        ]
    )
    message.header.stamp = stamp
    return message


def _diagnose_input(statistics: Statistics, state: InputState) -> Status:
    values = {
        'topic': state.topic,
        'publishers': str(state.publishers),
        **{f'{what} made anew': str(count) for what, count in state.made_anew.items()},
    }
    problem = statistics.recent_problem('input')
    if not state.active:
        return Status(Level.OK, 'image', 'inactive: activate the node to start', values)
    if problem:
        return Status(Level.ERROR, 'image', f'rejected: {problem}', values)
    if state.deaf:
        why = (
            f'{state.topic} is published and camera_info arrives, but no image: too many of its '
            'packets were lost. What receives it is made anew; if that does not help, see the '
            'page on QoS and large images'
        )
        return Status(Level.ERROR, 'image', f'deaf: {why}', values)
    if statistics.silence_s() <= state.stale_after_s:
        return Status(Level.OK, 'image', 'images arrive', values)
    if state.publishers == 0:
        why = f'nobody publishes {state.topic}: start the camera or remap image to its topic'
    elif state.wanted_type not in state.offered_types:
        why = (
            f'{state.topic} carries {", ".join(state.offered_types)}, not {state.wanted_type}: '
            'remap image to another topic or change the parameter image_transport'
        )
    elif state.qos_mismatch:
        why = (
            f'the publisher of {state.topic} offers a QoS that does not match: set '
            f'qos_overrides.{state.topic}.subscription.reliability to what it offers'
        )
    elif statistics.received == 0:
        why = f'{state.topic} has a publisher but no image has arrived: is the camera streaming?'
    else:
        why = (
            f'no image for {statistics.silence_s():.1f} s: the camera has stopped, or the network '
            'loses large messages (see the page on QoS and large images)'
        )
    waiting = 'waiting' if statistics.received == 0 else 'stale'
    return Status(Level.WARN, 'image', f'{waiting}: {why}', values)


def _diagnose_problem(statistics: Statistics, topic: str, level: Level, fine: str) -> Status:
    problem = statistics.recent_problem(topic)
    return Status(level if problem else Level.OK, topic, problem or fine)


def _diagnose_backend(statistics: Statistics, backend: BackendState) -> Status:
    levels = {'ready': Level.OK, 'absent': Level.OK, 'loading': Level.WARN}
    problem = statistics.recent_problem('backend')
    if backend.state == 'ready' and problem:
        return Status(Level.ERROR, 'backend', problem)
    message = f'{backend.state}: {backend.detail}' if backend.detail else backend.state
    return Status(levels.get(backend.state, Level.ERROR), 'backend', message)


def _rate(times_s: deque[float], now_s: float) -> float:
    recent = [at_s for at_s in times_s if now_s - at_s < RECENT_S]
    return len(recent) / RECENT_S
