"""TensorRT 10.3 to 11 on NVIDIA GPUs; ONNX Runtime serves until the engines are built.

Not run on hardware by the project's tests, which have neither TensorRT nor a GPU: they run it
against stand-ins for both. docs/tensorrt.md says what is checked.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from handos_model.backends import onnxruntime as onnxruntime_backend
from handos_model.backends.base import Array, Engine, EngineOptions, Graph, with_window
from handos_model.backends.tensorrt import library as tensorrt_library
from handos_model.backends.tensorrt.background import BackgroundEngine, FrameCollector
from handos_model.backends.tensorrt.builder import build_engine, workspace_bytes
from handos_model.backends.tensorrt.cache import EngineCache, Machine
from handos_model.backends.tensorrt.cuda_driver import GpuFaultError, GpuStateError
from handos_model.backends.tensorrt.graph import Gpu, TensorRtGraph
from handos_model.backends.tensorrt.library import TensorRtLibrary
from handos_model.backends.tensorrt.preparation import EnginePreparation, Prepared
from handos_model.errors import UserError
from handos_model.weights.exported import ExportedWeights

_log = logging.getLogger(__name__)
_NICENESS = 10  # of the process that builds, beside one that serves
_POLL_S = 0.5
_BROKE_THE_GPU = 3  # exit code of that process
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


class BuilderCrashError(Exception):
    """The process that was building an engine crashed."""


def missing() -> str | None:
    """Why it cannot run here, None where it can; asks the library and the GPU themselves."""
    if (why := onnxruntime_backend.missing()) is not None:
        return f'ONNX Runtime, with which engines are compared, is {why}'
    if (why := tensorrt_library.missing()) is not None:
        return why
    try:
        TensorRtToolkit()
    except UserError as error:
        return str(error)
    return None


class TensorRtToolkit:
    """The library and the GPU of this machine."""

    def __init__(self) -> None:
        """Raises UserError where the library, the driver and the GPU do not work together."""
        self._gpu = Gpu.open()
        self._library = TensorRtLibrary()
        driver = self._gpu.driver
        self.machine = Machine(
            self._library.version, driver.device_name(), driver.compute_capability()
        )

    def build(self, model: Path, hands: int | None, timings: bytes) -> tuple[bytes, bytes]:
        """(serialised engine, timing cache) of an ONNX file, for K `hands`."""
        workspace = workspace_bytes(self._gpu.driver.free_bytes())
        return build_engine(self._library, model, hands, timings, workspace)

    def open(self, plan: bytes, hands: int | None) -> Graph:
        """The detector where `hands` is None; its features stay on the GPU."""
        on_device = ('features',) if hands is None else ()
        return TensorRtGraph(self._library, self._gpu, plan, on_device)


def open_engine(weights: Path, options: EngineOptions) -> Engine:
    """At once: TensorRT where its engines are ready, else ONNX Runtime until they are."""
    toolkit, cache = TensorRtToolkit(), EngineCache.of_user(_log.warning)

    def open_graphs(exported: ExportedWeights, options: EngineOptions) -> Engine:
        preparation = EnginePreparation(exported, options, toolkit, cache, _log.info)
        try:
            ready = preparation.ready()
            if ready is not None and all(item.engine.frames for item in ready.values()):
                return _engine(toolkit, ready)
        except UserError as error:  # the other thread meets it again and says it
            _log.warning('%s', error)
        make = partial(_make, exported, options, preparation, toolkit)
        return BackgroundEngine(_reference(exported, options), make, 'TensorRT')

    return with_window(weights, options, open_graphs)


def prepare(
    weights: Path,
    options: EngineOptions,
    images: Sequence[Array] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Engine:
    """Build all engines of an exported folder now, compare them, and open them.

    `images` are uint8 [H,W,3] of the network's size. Raises UserError where that cannot be done.
    """
    if (reason := missing()) is not None:
        raise UserError(f'backend tensorrt cannot run: {reason}')
    toolkit = TensorRtToolkit()
    cache = EngineCache.of_user(report)

    def build(exported: ExportedWeights, options: EngineOptions) -> Engine:
        preparation = EnginePreparation(exported, options, toolkit, cache, report)
        seen = [exported.seen(image) for image in images]
        return _engine(toolkit, preparation.prepare(_reference(exported, options), seen))

    return with_window(weights, options, build)


def _make(
    exported: ExportedWeights,
    options: EngineOptions,
    preparation: EnginePreparation,
    toolkit: TensorRtToolkit,
    frames: FrameCollector,
    alive: Callable[[], None],
) -> Engine:
    """Build in a process of its own, then compare on frames of this robot's camera.

    A variant that is refused on them leaves the next one to be built, so this ends.
    """
    while True:
        ready = preparation.ready()
        if ready is None:
            try:
                _prepare_in_child(exported.folder, options, alive)
            except GpuFaultError:  # that engine is refused already; the next may be well
                continue
            except BuilderCrashError as error:
                preparation.refuse_next(str(error))
                continue
            ready = preparation.ready()
            if ready is None:
                raise UserError('the engines that were built cannot be read back')
        engine = _engine(toolkit, ready)
        if all(item.engine.frames for item in ready.values()):
            return engine
        images = frames.wait(alive)
        problems = preparation.confirm(ready, engine, _reference(exported, options), images)
        if not problems:
            return engine
        _log.warning('TensorRT is wrong on frames of this camera: %s', '; '.join(problems))


def _engine(toolkit: TensorRtToolkit, ready: Mapping[int | None, Prepared]) -> Engine:
    graphs = {hands: toolkit.open(item.engine.plan, hands) for hands, item in ready.items()}
    samplings = '/'.join(dict.fromkeys(item.sampling for item in ready.values()))
    precision = ready[None].key.precision
    machine = toolkit.machine
    name = f'tensorrt {machine.tensorrt} on {machine.gpu}, {precision}, {samplings}'
    decoders = {hands: graph for hands, graph in graphs.items() if hands is not None}
    return Engine(name, graphs[None], decoders, precision)


def _reference(exported: ExportedWeights, options: EngineOptions) -> Engine:
    """ONNX Runtime on the CPU, as exact as the folder has it."""
    exact = any(precision == 'fp32' for precision, _ in exported.variants())
    options = replace(options, precision='fp32' if exact else 'auto')
    return onnxruntime_backend.open_graphs(exported, options)


def _prepare_in_child(weights: Path, options: EngineOptions, alive: Callable[[], None]) -> None:
    """Build where a crash of the builder, its memory and its load do not reach the frames."""
    words = [str(os.getpid()), str(weights.absolute()), options.precision, str(options.max_hands)]
    command = [sys.executable, '-m', __name__, *words]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors='replace',
    ) as child:  # fmt: skip
        try:
            while True:
                try:
                    said, _ = child.communicate(timeout=_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    alive()
        except BaseException:
            child.kill()
            raise
    last = (said.strip().splitlines() or ['nothing'])[-1]
    if -child.returncode in _CRASHES:
        raise BuilderCrashError(f'TensorRT crashed with signal {-child.returncode} building it')
    if child.returncode < 0:
        raise GpuStateError(
            f'the process that builds engines was ended by signal {-child.returncode}: if that '
            'was for want of memory (dmesg says so), build ahead of time: handos export --engine'
        )
    if child.returncode == _BROKE_THE_GPU:
        raise GpuFaultError(last)
    if child.returncode != 0:
        raise UserError(last)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone: nobody waits for the engines."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(arguments: Sequence[str]) -> int:
    """Build the engines for the process `arguments[0]`; see `_prepare_in_child`."""
    parent, weights, precision, max_hands = arguments
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    os.nice(_NICENESS)
    options = EngineOptions(precision=precision, max_hands=int(max_hands))  # type: ignore[arg-type]
    try:
        prepare(Path(weights), options, report=partial(print, flush=True))
    except UserError as error:
        print(error)
        return _BROKE_THE_GPU if isinstance(error, GpuFaultError) else 2
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
