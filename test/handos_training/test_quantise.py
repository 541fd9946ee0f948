"""`handos-quantise`: adds 8-bit graphs that passed, and nothing where they did not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from handos_model.backends.base import EngineOptions
from handos_model.backends.choice import open_engine
from handos_model.errors import UserError
from handos_model.weights.exported import AccuracyGate, ExportedWeights
from handos_model.weights.store import verify_checksums, write_checksums
from handos_training import quantise
from handos_training.quantise import QuantiseConfig, run


@pytest.fixture
def folder(tiny_weights: Path, tmp_path: Path) -> Path:
    copy = tmp_path / 'weights'
    shutil.copytree(tiny_weights, copy)
    write_checksums(copy)
    return copy


def test_what_passes_is_added(folder: Path) -> None:
    before = ExportedWeights.load(folder)
    gate = run(QuantiseConfig(folder, calibration=2, images=2, limit=1.0))
    after = ExportedWeights.load(folder)
    assert after.gate('int8') == gate
    assert gate.images == 2
    assert {name.split('.')[1] for name in gate.losses} >= {'found'}
    assert after.hands('int8', 'grid_sample') == before.hands('fp32', 'grid_sample')
    window = ExportedWeights.load_window(folder)
    assert window is not None and window.gate('int8') == gate
    assert {graph.file for graph in window.graphs if graph.precision == 'int8'} == {
        'detector_window_int8.onnx',
        'decoder_window_int8.onnx',
    }
    verify_checksums(folder)
    for name in {name.split('.')[0] for name in gate.losses}:
        options = EngineOptions(precision='int8', max_hands=1, threads=1)
        engine = open_engine(name, folder, options)
        assert engine.precision == 'int8'
        assert engine.window is not None and engine.window.graphs.precision == 'int8'
    assert [graph for graph in after.graphs if graph.precision != 'int8'] == list(before.graphs)
    run(QuantiseConfig(folder, calibration=1, images=1, limit=1.0))  # replaces the old ones
    assert len(ExportedWeights.load(folder).graphs) == len(after.graphs)


def test_what_loses_is_not_written(folder: Path) -> None:
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    with pytest.raises(UserError, match='nothing was written'):
        run(QuantiseConfig(folder, calibration=1, images=1, limit=-2.0))
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before


def test_decoders_stay_in_float_where_they_lose(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [1.0, 0.0]

    def judged(*_: object) -> AccuracyGate:
        return AccuracyGate('int8', 1, 1, 0.005, {'a.found': losses.pop(0)}, {'a.found': 0.0})

    monkeypatch.setattr(quantise, '_gate', judged)
    run(QuantiseConfig(folder, calibration=1, images=1))
    after = ExportedWeights.load(folder)
    files = {graph.hands: graph.file for graph in after.graphs if graph.precision == 'int8'}
    assert files == {None: 'detector_int8.onnx', 1: 'decoder.onnx', 2: 'decoder.onnx'}
    assert not (folder / 'decoder_int8.onnx').exists()
    window = ExportedWeights.load_window(folder)
    assert window is not None
    closer = {graph.hands: graph.file for graph in window.graphs if graph.precision == 'int8'}
    assert closer == {None: 'detector_window_int8.onnx', 1: 'decoder_window.onnx'}
    assert after.path(1, 'int8', 'grid_sample') == folder / 'decoder.onnx'


def test_pictures_must_be_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no picture'):
        run(QuantiseConfig(folder, photos=tmp_path / 'none', calibration=1, images=1))
