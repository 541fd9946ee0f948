"""An engine that serves at once with what there is, until a faster one is ready."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from handos_model.backends.base import Array, Engine
from handos_model.errors import UserError

FRAMES = 3  # real frames to compare the faster engine on
FRAME_STEP = 10  # frames between two of them, so that they differ
FLAT = 8.0  # standard deviation below which a picture shows nothing: warm-up, or a covered lens
_POLL_S = 0.5

_log = logging.getLogger(__name__)


class AbandonedError(Exception):
    """Nobody uses the engine any more, so the work for it ends."""


class FrameCollector:
    """A few of the frames that were served, for another thread to compare engines on."""

    def __init__(self) -> None:
        self._frames: list[Array] = []
        self._seen = 0
        self._enough = threading.Event()

    def offer(self, image: Array) -> None:
        """Copy every tenth of the first frames that show something; uint8 [1,H,W,3]."""
        if self._enough.is_set() or image[0, ::8, ::8].std() < FLAT:
            return
        if self._seen % FRAME_STEP == 0:
            self._frames.append(image[0].copy())
        self._seen += 1
        if len(self._frames) == FRAMES:
            self._enough.set()

    def wait(self, alive: Callable[[], None]) -> list[Array]:
        """The frames, uint8 [H,W,3], when there are enough; `alive` may raise to give up."""
        while not self._enough.wait(_POLL_S):
            alive()
        return list(self._frames)


# Makes the faster engine, in another thread: given the frames that are served, and a function
# that raises AbandonedError when the work is not wanted any more.
Maker: TypeAlias = Callable[[FrameCollector, Callable[[], None]], Engine]


class BackgroundEngine(Engine):
    """`serving` until `make` has made its engine, from then on that one.

    It changes only when a frame begins, in the thread that asks for the frame, so no frame mixes
    the two. Where `make` raises, `serving` stays and `name` says why.
    """

    def __init__(self, serving: Engine, make: Maker, goal: str) -> None:
        super().__init__(
            name=f'{serving.name}, while {goal} is prepared',
            detector=_SwitchingDetector(self, serving.detector),
            decoders=serving.decoders,
            precision=serving.precision,
        )
        self._serving, self._goal = serving.name, goal
        self._made: Engine | None = None
        self._frames = FrameCollector()
        self._settled = threading.Event()
        # The thread must not keep alive what its work is for.
        arguments = (weakref.ref(self), make, self._frames)
        threading.Thread(target=_work, args=arguments, name=f'prepare {goal}', daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until `make` has ended in either way; False where the time was over first."""
        return self._settled.wait(timeout_s)

    def settle(self, made: Engine | None, problem: str) -> None:
        """Called by the other thread: the faster engine, or why there is none."""
        if made is None:
            self.name = f'{self._serving} ({self._goal} is not used: {problem})'
            _log.warning('%s', self.name)
        self._made = made
        self._settled.set()

    def frame_begins(self, image: Array) -> Engine | None:
        """The engine to switch to now, once."""
        made, self._made = self._made, None
        if made is not None:
            self.decoders, self.precision, self.name = made.decoders, made.precision, made.name
            _log.info('switched over to %s', made.name)
        elif not self._settled.is_set():
            self._frames.offer(image)
        return made


class _SwitchingDetector:
    """The detector of a BackgroundEngine: a frame begins with it."""

    def __init__(self, owner: BackgroundEngine, serving: Any) -> None:
        self._owner = weakref.ref(owner)
        self._detector = serving

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        owner = self._owner()
        made = owner.frame_begins(inputs['image']) if owner is not None else None
        if made is not None:
            self._detector = made.detector
        outputs: dict[str, Any] = self._detector.infer(inputs)
        return outputs


def _work(owner: weakref.ref[BackgroundEngine], make: Maker, frames: FrameCollector) -> None:
    def alive() -> None:
        if owner() is None:
            raise AbandonedError

    made, problem = None, ''
    try:
        made = make(frames, alive)
    except AbandonedError:
        return
    except UserError as error:
        problem = str(error)
    except Exception as error:  # serving goes on whatever happens here
        _log.exception('preparing a faster engine failed')
        problem = repr(error)
    engine = owner()
    if engine is not None:
        engine.settle(made, problem)
