"""Which engines are ever run: built once, compared, kept, refused, never taken from others."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fake_tensorrt import FakeMachine
from small_graphs import SIZE_HW, frames, small_export
from toy_engines import OPTIONS, builds, prepared

from handos_model.backends import onnxruntime as onnxruntime_backend
from handos_model.backends.parity import beyond_limits, engine_parity
from handos_model.backends.tensorrt import backend
from handos_model.backends.tensorrt.backend import TensorRtToolkit, prepare
from handos_model.backends.tensorrt.cache import EngineCache, StoredEngine
from handos_model.backends.tensorrt.cuda_driver import CudaDriver, GpuFaultError, GpuStateError
from handos_model.backends.tensorrt.preparation import EnginePreparation
from handos_model.errors import UserError
from handos_model.weights.exported import ExportedWeights


def test_a_second_start_builds_nothing(machine: FakeMachine, weights: Path) -> None:
    prepared(weights)
    assert builds(machine) == [
        'detector/grid_sample',
        'decoder1/grid_sample',
        'decoder2/grid_sample',
    ]
    opened = backend.open_engine(weights, OPTIONS)
    assert len(builds(machine)) == 3
    assert opened.name.startswith('tensorrt')


def test_the_graphs_of_a_window_are_engines_too(machine: FakeMachine, tmp_path: Path) -> None:
    weights = small_export(tmp_path / 'toy', window=True)
    window = prepared(weights).window
    assert builds(machine)[3:] == ['detector_window/grid_sample', 'decoder_window1/grid_sample']
    assert window is not None and window.graphs.name.startswith('tensorrt')
    assert (window.place.corner_px, window.size_hw) == ((2, 4), (4, 4))
    reference = onnxruntime_backend.open_engine(weights, OPTIONS).window
    assert reference is not None
    seen = [image[2:6, 4:8] for image in frames(4, seed=9)]
    assert not beyond_limits(engine_parity(reference.graphs, window.graphs, seen, (4, 4)), 'fp32')
    opened = backend.open_engine(weights, OPTIONS).window
    assert opened is not None and opened.graphs.name.startswith('tensorrt')
    assert len(builds(machine)) == 5


def test_other_weights_of_the_whole_are_other_engines_of_the_window(
    machine: FakeMachine, tmp_path: Path
) -> None:
    """A window's file holds no weights: it must not be taken for that of weights before."""
    for seed in (0, 1):
        prepared(small_export(tmp_path / f'toy{seed}', window=True, seed=seed))
    assert len(builds(machine)) == 10


def test_a_miscomputed_variant_is_never_used_again(machine: FakeMachine, weights: Path) -> None:
    machine.faults.wrong = ['detector/grid_sample', 'decoder2/grid_sample', 'decoder2/plugin']
    said: list[str] = []
    engine = prepared(weights, said)
    assert engine.name.endswith('fp32, plugin/grid_sample/gather')
    assert any('differs from ONNX Runtime by' in line for line in said)
    reference = onnxruntime_backend.open_engine(weights, OPTIONS)
    errors = engine_parity(reference, engine, frames(4, seed=9), SIZE_HW)
    assert not beyond_limits(errors, 'fp32')
    machine.faults.loaded_plans.clear()
    backend.open_engine(weights, OPTIONS)
    assert len(builds(machine)) == 6
    assert len(machine.faults.loaded_plans) == 3
    for plan in machine.faults.loaded_plans:  # refused engines are not even kept
        assert not any(name.encode() in plan for name in machine.faults.wrong)


def test_nan_counts_as_wrong(machine: FakeMachine, weights: Path) -> None:
    machine.faults.nan = ['decoder1/grid_sample']
    assert prepared(weights).name.endswith('grid_sample/plugin')


def test_where_every_variant_is_wrong_none_is_used(machine: FakeMachine, weights: Path) -> None:
    machine.faults.wrong = [f'decoder1/{s}' for s in ('grid_sample', 'plugin', 'gather')]
    for _ in range(2):  # the second time from the verdicts on disk
        with pytest.raises(UserError, match=r'no TensorRT engine of the decoder of 1 may be used'):
            prepared(weights)
    assert builds(machine).count('decoder1/gather') == 1


def test_a_variant_that_cannot_be_read_gives_way_to_the_next(
    machine: FakeMachine, weights: Path
) -> None:
    machine.faults.unreadable = ['detector/grid_sample', 'detector/plugin']
    assert prepared(weights).name.endswith('gather/grid_sample')


def test_too_little_memory_says_nothing_about_the_variant(
    machine: FakeMachine, weights: Path
) -> None:
    machine.faults.build_error = 'Error Code 2: OutOfMemory'
    with pytest.raises(GpuStateError, match='too little free memory'):
        prepared(weights)
    machine.faults.build_error = ''
    assert prepared(weights).name.endswith('grid_sample')  # it is tried again


def test_only_the_wanted_decoders_are_built(machine: FakeMachine, weights: Path) -> None:
    prepare(weights, replace(OPTIONS, max_hands=1))
    assert builds(machine) == ['detector/grid_sample', 'decoder1/grid_sample']


@pytest.mark.parametrize('fault', ['changed', 'truncated', 'unsigned', 'other key', 'renamed'])
def test_files_that_are_not_ours_are_never_loaded(
    machine: FakeMachine, weights: Path, tmp_path: Path, fault: str
) -> None:
    prepared(weights)
    machine.faults.loaded_plans.clear()
    paths = sorted(machine.engines.glob('*.engine'))
    good = {path: path.read_bytes() for path in paths}
    evil = b'FAKEPLAN' + b'evil' * 100
    if fault == 'other key':
        (machine.engines / 'engine.key').unlink()
    for path, following in zip(paths, paths[1:] + paths[:1], strict=True):
        data = good[path]
        content = {
            'changed': data.replace(b'FAKEPLAN', b'FAKEPLAM'),
            'truncated': data[:-1],
            'unsigned': evil,
            'other key': data,
            'renamed': good[following],
        }[fault]
        path.write_bytes(content)
    said: list[str] = []
    prepared(weights, said)
    assert len(builds(machine)) == 6  # all were built again
    assert sum('is not used' in line for line in said) >= 3
    for plan in machine.faults.loaded_plans:
        assert b'evil' not in plan
    assert len(machine.faults.loaded_plans) == 6  # each new one for the comparison and for use


def test_engines_of_another_version_or_gpu_are_not_loaded(
    machine: FakeMachine, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(weights)
    monkeypatch.setattr(CudaDriver, 'device_name', lambda self: 'Another GPU')
    machine.faults.loaded_plans.clear()
    prepared(weights)
    assert len(builds(machine)) == 6 and len(machine.faults.loaded_plans) == 6
    monkeypatch.setattr(CudaDriver, 'compute_capability', lambda self: '11.0')
    prepared(weights)
    assert len(builds(machine)) == 9


@pytest.mark.fault('disk', 'full while engines are prepared', 'the old ones stay')
def test_a_full_disk_leaves_the_old_engines(
    machine: FakeMachine, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(weights)
    before = {path: path.read_bytes() for path in machine.engines.glob('*.engine')}
    monkeypatch.setattr(CudaDriver, 'device_name', lambda self: 'Another GPU')

    def full(self: EngineCache, path: Path, header: object, payload: bytes) -> None:
        raise UserError(f'{path} could not be written (the disk is full)')

    monkeypatch.setattr(EngineCache, '_write', full)
    with pytest.raises(UserError, match='the disk is full'):
        prepared(weights)
    after = {path: path.read_bytes() for path in machine.engines.glob('*.engine')}
    assert after == before


def test_two_builders_at_once_build_once(machine: FakeMachine, weights: Path) -> None:
    threads = [threading.Thread(target=prepared, args=(weights,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(builds(machine)) == sorted(set(builds(machine))) and len(builds(machine)) == 3


def test_made_up_pictures_are_not_taken_for_real_frames(
    machine: FakeMachine, weights: Path
) -> None:
    prepare(weights, OPTIONS)
    preparation = EnginePreparation(
        ExportedWeights.load(weights), OPTIONS, TensorRtToolkit(), EngineCache.of_user()
    )
    ready = preparation.ready()
    assert ready is not None and {item.engine.frames for item in ready.values()} == {0}
    prepared_on_frames = {item.engine.frames for item in preparation.ready().values()}  # type: ignore[union-attr]
    assert prepared_on_frames == {0}


def test_a_verdict_on_real_frames_that_cannot_be_written_still_counts(
    machine: FakeMachine, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = prepare(weights, OPTIONS)
    said: list[str] = []
    preparation = EnginePreparation(
        ExportedWeights.load(weights),
        OPTIONS,
        TensorRtToolkit(),
        EngineCache.of_user(),
        said.append,
    )
    ready = preparation.ready()
    assert ready is not None
    reference = onnxruntime_backend.open_engine(weights, OPTIONS)

    def full(self: EngineCache, key: object, stored: StoredEngine) -> None:
        raise UserError('the disk is full')

    monkeypatch.setattr(EngineCache, 'store', full)
    assert preparation.confirm(ready, engine, reference, frames()) == []
    assert 'compared again at every start' in said[-1]
    machine.faults.wrong = ['decoder2/grid_sample']
    with pytest.raises(UserError, match='disk is full'):  # a refusal must be remembered
        preparation.confirm(ready, engine, reference, frames())


def test_an_engine_that_does_not_run_gives_way_to_the_next(
    machine: FakeMachine, weights: Path
) -> None:
    machine.faults.run_fails = True
    with pytest.raises(UserError, match=r'may be used .*grid_sample: .*does not run.*gather: '):
        prepared(weights)


@pytest.mark.fault('backend', 'the engine breaks the GPU', 'refused at once')
def test_one_that_breaks_the_gpu_is_refused_at_once(machine: FakeMachine, weights: Path) -> None:
    machine.faults.breaks = ['decoder1/grid_sample']
    with pytest.raises(GpuFaultError, match='CUDA_ERROR_LAUNCH_FAILED'):
        prepared(weights)
    assert builds(machine) == ['detector/grid_sample', 'decoder1/grid_sample']


def test_one_that_breaks_the_gpu_on_real_frames_is_refused(
    machine: FakeMachine, weights: Path
) -> None:
    engine = prepare(weights, OPTIONS)
    preparation = EnginePreparation(
        ExportedWeights.load(weights), OPTIONS, TensorRtToolkit(), EngineCache.of_user()
    )
    ready = preparation.ready()
    assert ready is not None
    machine.faults.breaks = ['decoder2/grid_sample']
    reference = onnxruntime_backend.open_engine(weights, OPTIONS)
    with pytest.raises(GpuFaultError):
        preparation.confirm(ready, engine, reference, frames())
    assert preparation.ready() is None  # its next variant is to be built
