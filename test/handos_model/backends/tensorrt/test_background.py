"""Serving while a faster engine is prepared: when it changes, and what happens when it cannot."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import FakeMachine
from small_graphs import frames, small_export

from handos_model.backends.base import Engine, EngineOptions
from handos_model.backends.tensorrt import backend
from handos_model.backends.tensorrt.backend import open_engine
from handos_model.backends.tensorrt.background import (
    FRAME_STEP,
    FRAMES,
    AbandonedError,
    BackgroundEngine,
    FrameCollector,
)
from handos_model.backends.tensorrt.preparation import SAMPLINGS
from handos_model.errors import UserError

OPTIONS = EngineOptions(max_hands=2, threads=1)
PATIENCE_S = 60
ROOT = Path(__file__).resolve().parents[4]


class Named:
    """A graph that answers with its owner's name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def infer(self, inputs: Any) -> dict[str, Any]:
        return {'by': self.name}


def engine(name: str, precision: str = 'fp32') -> Engine:
    return Engine(name, Named(name), {1: Named(name), 2: Named(name)}, precision)


def picture(index: int = 0) -> dict[str, np.ndarray]:
    return {'image': frames(1, seed=index)[0][None]}


def frame(served: Engine) -> tuple[str, str]:
    """Who answered for the detector and for the decoder of one frame."""
    found = served.detector.infer(picture())
    return found['by'], served.decoders[1].infer({})['by']


def test_it_changes_between_frames_and_never_within_one() -> None:
    go, made = threading.Event(), threading.Event()

    def make(collector: FrameCollector, alive: Callable[[], None]) -> Engine:
        assert go.wait(PATIENCE_S)
        made.set()
        return engine('fast', 'fp16')

    served = BackgroundEngine(engine('slow'), make, 'the fast one')
    assert served.name == 'slow, while the fast one is prepared'
    assert frame(served) == ('slow', 'slow')
    assert served.detector.infer(picture())['by'] == 'slow'
    go.set()
    assert served.wait(PATIENCE_S) and made.is_set()
    # It is ready, but this frame was begun by the slow one.
    assert served.decoders[1].infer({})['by'] == 'slow' and served.precision == 'fp32'
    assert frame(served) == ('fast', 'fast')
    assert (served.name, served.precision) == ('fast', 'fp16')
    assert frame(served) == ('fast', 'fast')


def test_frames_under_load_are_never_mixed() -> None:
    served = BackgroundEngine(
        engine('slow'), lambda *_: (time.sleep(0.05), engine('fast'))[1], 'the fast one'
    )
    found = []
    while not found or found[-1][0] == 'slow':
        found.append(frame(served))
    assert set(found) <= {('slow', 'slow'), ('fast', 'fast')}


@pytest.mark.parametrize('error', [UserError('no room on the GPU'), RuntimeError('a bug')])
def test_where_it_cannot_be_made_the_slow_one_stays_and_says_why(error: Exception) -> None:
    def make(collector: FrameCollector, alive: Callable[[], None]) -> Engine:
        raise error

    served = BackgroundEngine(engine('slow'), make, 'TensorRT')
    assert served.wait(PATIENCE_S)
    assert frame(served) == ('slow', 'slow')
    assert served.name.startswith('slow (TensorRT is not used: ')
    assert str(error) in served.name


def test_the_slow_engine_is_let_go_of() -> None:
    slow = engine('slow')
    kept = weakref.ref(slow.detector)
    served = BackgroundEngine(slow, lambda *_: engine('fast'), 'the fast one')
    del slow
    assert served.wait(PATIENCE_S)
    frame(served)
    gc.collect()
    assert kept() is None


def test_work_ends_when_nobody_wants_it() -> None:
    ended = threading.Event()

    def make(collector: FrameCollector, alive: Callable[[], None]) -> Engine:
        try:
            collector.wait(alive)
        except AbandonedError:
            ended.set()
            raise
        return engine('fast')

    served = BackgroundEngine(engine('slow'), make, 'the fast one')
    frame(served)
    del served
    gc.collect()
    assert ended.wait(PATIENCE_S)


def test_frames_that_show_something_are_collected() -> None:
    collector = FrameCollector()
    for level in (0, 114, 255):  # what warm-up shows, and a covered lens
        collector.offer(np.full((1, 8, 8, 3), level, np.uint8))
    shown = [picture(index)['image'] for index in range(FRAMES * FRAME_STEP)]
    for image in shown:
        collector.offer(image)
    found = collector.wait(lambda: None)
    assert len(found) == FRAMES
    for image, expected in zip(found, shown[::FRAME_STEP], strict=True):
        np.testing.assert_array_equal(image, expected[0])
        assert not np.shares_memory(image, expected)


# With the stand-in for TensorRT, building in a process of its own


@pytest.fixture
def tensorrt_version() -> str:
    return '10.3.0'


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return small_export(tmp_path / 'toy')


@pytest.fixture
def children(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    """Gives child processes the same stand-ins; returns what they call."""
    site = tmp_path / 'site'
    site.mkdir()
    (site / 'tensorrt.py').write_text(
        'import sys, fake_tensorrt\n'
        'sys.modules[__name__] = fake_tensorrt.of_environment()\n'
        'import os\n'
        'from handos_model.backends.tensorrt import cuda_driver\n'
        "cuda_driver.LIBRARY = os.environ['FAKE_CUDA']\n"
        # The driver is opened before the library.
    )
    (site / 'sitecustomize.py').write_text('import tensorrt\n')
    log = tmp_path / 'calls'
    machine.faults.log_file = str(log)
    paths = [str(site), str(Path(__file__).parent), str(ROOT)]
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(paths))
    monkeypatch.setenv('FAKE_CUDA', str(machine.cuda_path))
    monkeypatch.setenv('FAKE_TENSORRT', machine.faults.to_json())

    def calls() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    return calls


def serve(served: Engine, until: Callable[[], bool]) -> None:
    """Frames, one after the other, as a camera gives them."""
    deadline = time.monotonic() + PATIENCE_S
    index = 0
    while not until():
        assert time.monotonic() < deadline, served.name
        found = served.detector.infer(picture(index))
        inputs = {'features': found['features'], 'queries': found['queries'][0, :1],
                  'boxes_cxcywh': found['boxes_cxcywh'][0, :1]}  # fmt: skip
        served.decoders[1].infer(inputs)
        index += 1
        time.sleep(0.002)


def test_onnx_runtime_serves_until_the_engines_are_right_on_real_frames(
    machine: FakeMachine, weights: Path, children: Callable[[], list[str]]
) -> None:
    served = open_engine(weights, OPTIONS)
    assert isinstance(served, BackgroundEngine)
    assert served.name.startswith('onnxruntime on CPU')
    serve(served, lambda: served.name.startswith('tensorrt'))
    assert sum(call.startswith('build') for call in children()) == 3
    assert not any(call.startswith('build') for call in machine.faults.calls)  # not in here
    # The next start needs neither building nor frames.
    assert open_engine(weights, OPTIONS).name.startswith('tensorrt')


@pytest.mark.fault('backend', 'the engine computes something else', 'the next variant is tried')
def test_a_variant_that_is_wrong_on_real_frames_gives_way_to_the_next(
    machine: FakeMachine, weights: Path, children: Callable[[], list[str]]
) -> None:
    machine.faults.wrong = ['decoder2/grid_sample']  # here, not in the process that builds
    served = open_engine(weights, OPTIONS)
    serve(served, lambda: served.name.startswith('tensorrt'))
    assert served.name.endswith('grid_sample/plugin')
    assert 'build decoder2/plugin' in children()


@pytest.mark.parametrize('fault', ['crash', 'killed', 'memory', 'wrong'])
@pytest.mark.fault('backend', 'the engine cannot be built', 'ONNX Runtime serves on')
def test_a_builder_that_fails_leaves_onnx_runtime(
    machine: FakeMachine, weights: Path, children: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch, fault: str,
) -> None:  # fmt: skip
    faults = machine.faults
    if fault == 'crash':
        faults.crash = {f'detector/{s}': signal.SIGSEGV.value for s in SAMPLINGS}
        words = f'grid_sample: TensorRT crashed with signal {signal.SIGSEGV.value}'
    elif fault == 'killed':
        faults.crash = {'detector/grid_sample': signal.SIGKILL.value}
        words = f'ended by signal {signal.SIGKILL.value}'
    elif fault == 'memory':
        faults.build_error, words = 'Cuda Runtime (out of memory)', 'too little free memory'
    else:
        faults.wrong = [f'detector/{s}' for s in SAMPLINGS]
        words = 'no TensorRT engine of the detector may be used'
    monkeypatch.setenv('FAKE_TENSORRT', faults.to_json())
    served = open_engine(weights, OPTIONS)
    assert isinstance(served, BackgroundEngine)
    assert served.wait(PATIENCE_S)
    serve(served, lambda: 'TensorRT is not used' in served.name)
    assert served.name.startswith('onnxruntime on CPU') and words in served.name
    assert not list(machine.engines.glob('.*'))  # nothing half-written


@pytest.mark.fault('backend', 'the engine builder crashes', 'the next variant is tried')
def test_a_variant_that_crashes_the_builder_gives_way_to_the_next(
    machine: FakeMachine, weights: Path, children: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    machine.faults.crash = {'decoder1/grid_sample': signal.SIGSEGV.value}
    monkeypatch.setenv('FAKE_TENSORRT', machine.faults.to_json())
    served = open_engine(weights, OPTIONS)
    serve(served, lambda: served.name.startswith('tensorrt'))
    assert served.name.endswith('grid_sample/plugin')
    assert children().count('build decoder1/grid_sample') == 1
    assert children().count('build detector/grid_sample') == 1  # it was done already


def test_a_variant_that_breaks_the_gpu_gives_way_to_the_next(
    machine: FakeMachine, weights: Path, children: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The process that met it can build nothing more; only that variant is refused."""
    machine.faults.breaks = ['detector/grid_sample']
    monkeypatch.setenv('FAKE_TENSORRT', machine.faults.to_json())
    served = open_engine(weights, OPTIONS)
    serve(served, lambda: served.name.startswith('tensorrt'))
    assert served.name.endswith('plugin/grid_sample')
    assert children().count('build detector/grid_sample') == 1


def test_an_engine_that_does_not_load_any_more_leaves_onnx_runtime(
    machine: FakeMachine, weights: Path, children: Callable[[], list[str]]
) -> None:
    backend.prepare(weights, OPTIONS, frames())
    machine.faults.load_error = 'Cuda Runtime (out of memory)'
    served = open_engine(weights, OPTIONS)
    assert isinstance(served, BackgroundEngine) and served.wait(PATIENCE_S)
    assert 'too little free memory' in served.name
    serve(served, lambda: True)


def test_the_process_that_builds_ends_when_it_is_not_wanted(
    machine: FakeMachine, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def sleeper(command: list[str], **settings: Any) -> subprocess.Popen[str]:
        assert command[:3] == [sys.executable, '-m', 'handos_model.backends.tensorrt.backend']
        child = real([sys.executable, '-c', 'import time; time.sleep(600)'], **settings)
        started.append(child)
        return child

    monkeypatch.setattr(backend.subprocess, 'Popen', sleeper)
    served = open_engine(weights, OPTIONS)
    while not started:
        time.sleep(0.01)
    del served
    gc.collect()
    assert started[0].wait(PATIENCE_S) == -signal.SIGKILL


def test_the_process_that_builds_ends_with_its_parent() -> None:
    code = (
        'import subprocess, sys\n'
        "inner = 'from handos_model.backends.tensorrt.backend import _end_with; "
        "import os; print(os.getpid(), flush=True); _end_with(os.getppid())'\n"
        'child = subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE)\n'
        'print(child.stdout.readline().decode(), flush=True)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    child = int(done.stdout)
    deadline = time.monotonic() + PATIENCE_S
    while running(child):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def running(process: int) -> bool:
    try:
        return Path(f'/proc/{process}/stat').read_text().split()[2] != 'Z'
    except FileNotFoundError:
        return False
