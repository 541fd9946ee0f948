"""One thread that owns the backend, a slot with the newest frame, and a watchdog over both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from handos_model.errors import UserError
from handos_ros.node.diagnostics import BackendState, Statistics

FrameT = TypeVar('FrameT')
BackendT = TypeVar('BackendT')
ResultT = TypeVar('ResultT')

FAILURES_BEFORE_RELOAD = 5
RETRY_LOADING_S = 5.0
MOST_HANGING = 3  # abandoned threads that may exist at once; each holds a backend


class Worker(Generic[BackendT, FrameT, ResultT]):
    """Loads a backend in its own thread, then processes the newest frame there is.

    `load(report)` builds the backend; `process(backend, frame)` computes a result, or None where
    the frame was dropped (and counted) on the way; `publish(result)` sends it. A backend that
    raises is tried again, and rebuilt after several failures in a row; one that hangs is abandoned
    together with its thread, because Python cannot stop a thread, and built anew.
    """

    def __init__(
        self,
        load: Callable[[Callable[[str], None]], BackendT],
        process: Callable[[BackendT, FrameT], ResultT | None],
        publish: Callable[[ResultT], None],
        statistics: Statistics,
        watchdog_s: float,
    ) -> None:
        self._load = load
        self._process = process
        self._publish = publish
        self._statistics = statistics
        self._watchdog_s = watchdog_s
        self._condition = threading.Condition()
        self._slot: FrameT | None = None
        self._state = BackendState('loading', 'starting')
        self._failure: BaseException | None = None
        self._backend: BackendT | None = None
        self._generation = 0
        self._busy_since_s: float | None = None
        self._publishing = False
        self._hanging: list[threading.Thread] = []
        self._thread = self._start()

    @property
    def state(self) -> BackendState:
        return self._state

    @property
    def backend(self) -> BackendT | None:
        """The backend once it is loaded; only to read constants from."""
        return self._backend

    @property
    def failure(self) -> BaseException | None:
        """Why loading failed, while it does."""
        return self._failure

    @property
    def idle(self) -> bool:
        """Whether no frame is being processed or waits."""
        return self._busy_since_s is None and self._slot is None and not self._publishing

    def submit(self, frame: FrameT) -> None:
        """Hand over a frame; one that still waits is dropped for it."""
        with self._condition:
            if self._slot is not None:
                self._statistics.frame_dropped('a newer image came')
            self._slot = frame
            self._condition.notify_all()

    def clear(self) -> None:
        """Drop the waiting frame."""
        with self._condition:
            if self._slot is not None:
                self._statistics.frame_dropped('deactivated')
            self._slot = None

    def watch(self) -> None:
        """Abandon a backend that hangs; to be called several times in a watchdog period."""
        with self._condition:
            self._hanging = [thread for thread in self._hanging if thread.is_alive()]
            busy_since_s = self._busy_since_s
            if busy_since_s is None or time.monotonic() - busy_since_s < self._watchdog_s:
                return
            text = f'the backend has worked on one image for more than {self._watchdog_s:g} s'
            if len(self._hanging) >= MOST_HANGING:
                text += ', as did those before it: restart the node, and check the device'
                self._state = BackendState('hanging', text)
                self._statistics.problem('backend', text)
                return
            self._statistics.problem('backend', f'{text}: it is replaced by a new one')
            self._statistics.frame_dropped('backend hung')
            self._state = BackendState('hanging', text)
            self._hanging.append(self._thread)
            self._busy_since_s = None
            self._thread = self._start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread and let go of the backend; a hanging thread is left to itself."""
        with self._condition:
            self._generation += 1
            self._condition.notify_all()
        self.clear()
        self._thread.join(timeout_s)
        self._backend = None
        self._state = BackendState('absent', '')

    def _start(self) -> threading.Thread:
        self._generation += 1
        thread = threading.Thread(
            target=self._run, args=(self._generation,), name='handos-worker', daemon=True
        )
        thread.start()
        return thread

    def _current(self, generation: int) -> bool:
        return generation == self._generation

    def _run(self, generation: int) -> None:
        while self._current(generation):
            backend = self._build(generation)
            if backend is not None:
                self._serve(generation, backend)

    def _build(self, generation: int) -> BackendT | None:
        def report(text: str) -> None:
            if self._current(generation):
                self._state = BackendState('loading', text)

        try:
            backend = self._load(report)
        except Exception as error:
            with self._condition:
                if self._current(generation):
                    self._state = BackendState('failed', str(error) or repr(error))
                    self._failure = error
                    wait_s = None if isinstance(error, UserError) else RETRY_LOADING_S
                    self._condition.wait_for(lambda: not self._current(generation), wait_s)
            return None
        with self._condition:
            if not self._current(generation):
                return None
            self._backend = backend
            self._failure = None
            self._state = BackendState('ready', '')
        return backend

    def _serve(self, generation: int, backend: BackendT) -> None:
        """Process frames until the generation ends or the backend has failed too often."""
        failures = 0
        while failures < FAILURES_BEFORE_RELOAD:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._slot is not None or not self._current(generation)
                )
                if not self._current(generation):
                    return
                frame, self._slot = self._slot, None
                self._busy_since_s = time.monotonic()
            assert frame is not None
            try:
                result = self._process(backend, frame)
            except Exception as error:
                if self._finished(generation):
                    self._failed('backend failed', error)
                    failures += 1
            else:
                if not self._finished(generation):
                    return
                failures = 0
                if result is not None:
                    self._send(result)
            self._publishing = False

    def _send(self, result: ResultT) -> None:
        try:
            self._publish(result)
        except Exception as error:  # whatever it is, the next frame is served
            self._failed('publishing failed', error)

    def _failed(self, what: str, error: Exception) -> None:
        self._statistics.frame_dropped(what)
        self._statistics.problem('backend', f'{what}: {error!r}')

    def _finished(self, generation: int) -> bool:
        """Whether this thread still counts; a result that came too late is thrown away."""
        with self._condition:
            if not self._current(generation):
                return False
            self._busy_since_s = None
            self._publishing = True
            self._state = BackendState('ready', '')
            return True
