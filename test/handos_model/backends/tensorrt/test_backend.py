"""Running engines: memory, order, types, and the hand-over of features on the GPU."""

from __future__ import annotations

import gc
import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_tensorrt import FakeMachine
from small_graphs import SIZE_HW, frames, small_export
from toy_engines import OPTIONS, prepared

from handos_model.backends import onnxruntime as onnxruntime_backend
from handos_model.backends.base import EngineOptions
from handos_model.backends.choice import why_unavailable
from handos_model.backends.parity import beyond_limits, engine_parity, made_up_images
from handos_model.backends.tensorrt import backend
from handos_model.backends.tensorrt import preparation as engine_preparation
from handos_model.backends.tensorrt.backend import missing, prepare
from handos_model.backends.tensorrt.cuda_driver import CudaDriver, GpuStateError
from handos_model.backends.tensorrt.graph import DeviceTensor, Gpu, TensorRtGraph
from handos_model.backends.tensorrt.preparation import choose_precision
from handos_model.errors import UserError
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.types import Camera
from handos_model.weights.exported import ExportedWeights
from handos_ros.cli import main

# The CUDA driver


def test_the_driver_describes_the_gpu(machine: FakeMachine) -> None:
    driver = CudaDriver()
    assert driver.device_name() == 'Fake GPU'
    assert driver.compute_capability() == '8.7'
    assert driver.free_bytes() == 1 << 32


def test_copies_wait_for_the_stream_and_memory_is_given_back(machine: FakeMachine) -> None:
    driver = CudaDriver()
    stream = driver.create_stream()
    memory = driver.allocate(1024)
    assert memory.address > 1 << 32  # a 64-bit address: ctypes must not have cut it
    sent = np.arange(256, dtype=np.float32)
    received = driver.host_array((4, 64), np.float32)
    driver.copy_to_device(memory, sent, stream)
    driver.copy_to_host(received, memory, stream)
    assert not np.array_equal(received.ravel(), sent)
    driver.synchronize(stream)
    np.testing.assert_array_equal(received.ravel(), sent)
    view = received[0]
    del memory, received
    gc.collect()
    assert machine.cuda.fake_live_blocks() == 1  # a view keeps the host memory
    np.testing.assert_array_equal(view, sent[:64])
    del view
    gc.collect()
    assert machine.cuda.fake_live_blocks() == 0


def test_wrong_sizes_never_reach_the_driver(machine: FakeMachine) -> None:
    driver = CudaDriver()
    memory = driver.allocate(64)
    for array in (np.zeros(17, np.float32), np.zeros((8, 4), np.float32)[:, ::2]):
        with pytest.raises(ValueError, match='on the GPU'):
            driver.copy_to_device(memory, array, 0)


def test_driver_errors_say_what_to_do(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = CudaDriver()
    machine.cuda.fake_set_limit(1000)
    with pytest.raises(GpuStateError, match=r'CUDA_ERROR_OUT_OF_MEMORY: .*max_hands'):
        driver.allocate(2000)
    with pytest.raises(GpuStateError, match=r'CUDA error 400: .*restart'):
        driver.synchronize(1)
    machine.cuda.fake_set_devices(0)
    with pytest.raises(GpuStateError, match=r'NO_DEVICE: .*--gpus all'):
        CudaDriver()
    with pytest.raises(GpuStateError, match=r'driver library cannot be used .*install the driver'):
        CudaDriver('libnowhere.so')
    with pytest.raises(GpuStateError, match='cannot be used'):
        CudaDriver('libc.so.6')  # a library without CUDA's functions


def test_a_thread_must_make_the_context_current(machine: FakeMachine) -> None:
    driver = CudaDriver()
    problems: list[str] = []

    def elsewhere() -> None:
        try:
            driver.allocate(16)
        except GpuStateError as error:
            problems.append(str(error))
        driver.make_current()
        driver.allocate(16)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(problems) == 1 and 'INVALID_CONTEXT' in problems[0]


# Graphs


def test_engines_compute_what_onnx_runtime_computes(machine: FakeMachine, weights: Path) -> None:
    engine = prepared(weights)
    assert sorted(engine.decoders) == [1, 2]
    reference = onnxruntime_backend.open_engine(weights, OPTIONS)
    errors = engine_parity(reference, engine, frames(4, seed=9), SIZE_HW)
    assert not beyond_limits(errors, 'fp32')
    assert machine.faults.version in engine.name and 'Fake GPU' in engine.name
    assert engine.name.endswith('fp32, grid_sample')


def test_features_stay_on_the_gpu_and_are_the_newest(machine: FakeMachine, weights: Path) -> None:
    engine = prepared(weights)
    queries, boxes = np.zeros((1, 6), np.float32), np.full((1, 4), 0.5, np.float32)
    found = []
    for image in frames(3):
        outputs = engine.detector.infer({'image': image[None]})
        features = outputs['features']
        assert isinstance(features, DeviceTensor)
        on_gpu = {'features': features, 'queries': queries, 'boxes_cxcywh': boxes}
        found.append(engine.decoders[1].infer(on_gpu)['joints_m'].copy())
        by_host = {**on_gpu, 'features': features.numpy()}
        np.testing.assert_array_equal(engine.decoders[1].infer(by_host)['joints_m'], found[-1])
        # Changing between the two memories binds the right one again.
        np.testing.assert_array_equal(engine.decoders[1].infer(on_gpu)['joints_m'], found[-1])
    assert np.abs(found[0] - found[1]).max() > 1e-4
    for hands in engine.decoders:
        graph = engine.decoders[hands]
        assert isinstance(graph, TensorRtGraph)


def test_nothing_is_allocated_after_the_first_frames(machine: FakeMachine, weights: Path) -> None:
    engine = prepared(weights)
    gc.collect()
    image = frames(1)[0][None]
    engine.detector.infer({'image': image})
    before = machine.cuda.fake_used()
    for _ in range(20):
        engine.detector.infer({'image': image})
    assert machine.cuda.fake_used() == before
    assert machine.cuda.fake_waiting() == 0


def test_letting_go_of_an_engine_frees_its_memory(machine: FakeMachine, weights: Path) -> None:
    engine = prepared(weights)
    outputs = engine.detector.infer({'image': frames(1)[0][None]})
    kept = outputs['scores'].copy()
    scores = outputs['scores']
    del engine, outputs
    gc.collect()
    np.testing.assert_array_equal(scores, kept)  # its memory outlives the engine
    del scores
    gc.collect()
    assert machine.cuda.fake_live_blocks() == 0


def test_engines_run_in_another_thread_than_they_were_opened_in(
    machine: FakeMachine, weights: Path
) -> None:
    engine = prepared(weights)
    image = {'image': frames(1)[0][None]}
    here = engine.detector.infer(image)['scores'].copy()
    there: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: there.append(engine.detector.infer(image)['scores']))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(here, there[0])


@pytest.mark.parametrize(
    'inputs',
    [
        {},
        {'image': np.zeros((1, 8, 8, 3), np.float32)},
        {'image': np.zeros((1, 8, 9, 3), np.uint8)},
        {'image': np.zeros((1, 8, 8, 3), np.uint8), 'more': np.zeros(1)},
    ],
)
def test_wrong_inputs_never_reach_the_gpu(
    machine: FakeMachine, weights: Path, inputs: dict[str, np.ndarray]
) -> None:
    engine = prepared(weights)
    with pytest.raises(ValueError, match='instead of'):
        engine.detector.infer(inputs)
    assert machine.cuda.fake_waiting() == 0


def test_memory_of_another_stream_is_refused(machine: FakeMachine, weights: Path) -> None:
    engine = prepared(weights)
    features = engine.detector.infer({'image': frames(1)[0][None]})['features']
    foreign = replace(features, gpu=Gpu.open())
    boxes = np.full((1, 4), 0.5, np.float32)
    with pytest.raises(ValueError, match='elsewhere'):
        engine.decoders[1].infer(
            {'features': foreign, 'queries': np.zeros((1, 6), np.float32), 'boxes_cxcywh': boxes}
        )


def test_an_engine_that_does_not_run_or_load_says_so(machine: FakeMachine, weights: Path) -> None:
    engine = prepared(weights)
    machine.faults.run_fails = True
    with pytest.raises(UserError, match='does not run'):
        engine.detector.infer({'image': frames(1)[0][None]})
    machine.faults.no_context = True
    with pytest.raises(UserError, match='no room to run'):
        prepared(weights)
    machine.faults.load_error = 'Serialization assertion magicTag failed'
    with pytest.raises(UserError, match=r'cannot be loaded: .*delete the folder of engines'):
        prepared(weights)


# As a person uses it


def run(*words: object) -> int:
    """The exit code of `handos WORDS`."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code if isinstance(stop.value.code, int) else 0


def test_engines_are_built_ahead_of_time_without_torch(
    machine: FakeMachine,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'torch', None)
    picture = tmp_path / 'frame.png'
    cv2.imwrite(str(picture), frames(1)[0])
    assert run('export', weights, '--engine', '--hands', '1,2', '--images', picture) == 0
    said = capsys.readouterr().out
    assert 'engine of the decoder of 2: agrees with ONNX Runtime' in said
    assert f'ready: tensorrt {machine.faults.version} on Fake GPU, fp32, grid_sample' in said
    assert backend.open_engine(weights, OPTIONS).name.startswith('tensorrt')


def test_export_asks_for_what_to_do(
    machine: FakeMachine, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run('export', weights) == 2
    assert '--out DIR' in capsys.readouterr().err
    machine.cuda.fake_set_devices(0)
    assert run('export', weights, '--engine') == 2
    assert 'CUDA_ERROR_NO_DEVICE' in capsys.readouterr().err
    assert run('export', weights.parent, '--engine') == 2


def test_the_pipeline_finds_the_hands_that_it_finds_with_onnx_runtime(
    machine: FakeMachine, tiny_weights: Path
) -> None:
    """The whole way with a real network's graphs, computed by the stand-in."""
    images = made_up_images((96, 128))
    prepare(tiny_weights, EngineOptions(max_hands=2), images)
    camera = Camera(128, 96, np.array([[128.0, 0, 63.5], [0, 128, 47.5], [0, 0, 1]]))
    config = PipelineConfig(score_threshold=0.0, max_hands=2)
    options = EngineOptions(precision='fp16', max_hands=2, threads=1)
    by_name = {
        name: HandPipeline(tiny_weights, name, config, options)
        for name in ('tensorrt', 'onnxruntime')
    }
    assert by_name['tensorrt'].backend.startswith('tensorrt')
    assert by_name['tensorrt'].engine.precision == 'fp16'
    for image in images:
        found = {name: pipeline(image, camera) for name, pipeline in by_name.items()}
        assert len(found['tensorrt']) == len(found['onnxruntime']) > 0
        for one, other in zip(found['tensorrt'], found['onnxruntime'], strict=True):
            np.testing.assert_allclose(one.joints_px, other.joints_px, atol=1e-3)
            np.testing.assert_allclose(one.vertices_m, other.vertices_m, atol=1e-6)


# The choice


def test_what_is_missing_is_said_in_order(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing() is None and why_unavailable('tensorrt') is None
    machine.faults.start_warning = 'CUDA initialization failure with error: 35'
    assert 'driver is too old' in str(why_unavailable('tensorrt'))
    machine.cuda.fake_set_devices(0)
    assert 'CUDA_ERROR_NO_DEVICE' in str(why_unavailable('tensorrt'))
    with pytest.raises(UserError, match='tensorrt cannot run'):
        prepare(Path('anything'), OPTIONS)
    monkeypatch.setattr(onnxruntime_backend, 'missing', lambda: 'not installed (pip ...)')
    assert 'with which engines are compared' in str(missing())


def test_precision_is_what_was_exported(tmp_path: Path) -> None:
    both = ExportedWeights.load(small_export(tmp_path / 'both', precisions=('fp32', 'fp16')))
    whole = ExportedWeights.load(small_export(tmp_path / 'whole'))
    assert choose_precision(both, EngineOptions()) == 'fp16'
    assert choose_precision(whole, EngineOptions()) == 'fp32'
    assert choose_precision(both, EngineOptions(precision='fp32')) == 'fp32'
    for exported, precision in ((whole, 'fp16'), (both, 'bf16')):
        with pytest.raises(UserError, match='no graphs in'):
            choose_precision(exported, EngineOptions(precision=precision))  # type: ignore[arg-type]


def test_the_variants_that_are_tried_are_those_that_export_knows() -> None:
    from typing import get_args

    from handos_model.weights.exported import GraphSampling

    assert set(engine_preparation.SAMPLINGS) == set(get_args(GraphSampling))
