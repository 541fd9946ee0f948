"""The manifest: what is refused, and in which words."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from handos_model.backends import arithmetic
from handos_model.errors import UserError
from handos_model.weights.exported import (
    AccuracyGate,
    ExportedWeights,
    GraphFile,
    WindowPlace,
    files_beside,
    graph_file_name,
)
from handos_model.weights.store import sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph = tmp_path / 'detector.onnx'
    graph.write_bytes(b'graph')
    (tmp_path / 'decoder.onnx').write_bytes(b'decoder')
    graphs = (
        GraphFile('detector.onnx', sha256(graph), None, 'fp32', 'grid_sample', {'Conv': 3}),
        GraphFile('decoder.onnx', 'f' * 64, 2, 'fp32', 'grid_sample', {}),
    )
    exported = ExportedWeights(tmp_path, 'nano', 'Apache-2.0', 18, (480, 640), 'aa', '00', graphs)
    (tmp_path / 'manifest.json').write_text(exported.to_json())
    return tmp_path


def test_round_trip(folder: Path) -> None:
    exported = ExportedWeights.load(folder)
    assert exported.input_size_hw == (480, 640)
    assert exported.variants() == [('fp32', 'grid_sample')]
    assert exported.hands('fp32', 'grid_sample') == [2]
    assert exported.path(None, 'fp32', 'grid_sample') == folder / 'detector.onnx'
    assert ExportedWeights.load(folder) == exported


@pytest.mark.fault('disk', 'a graph that is changed or missing', 'refused')
def test_changed_and_missing_graphs_are_refused(folder: Path) -> None:
    exported = ExportedWeights.load(folder)
    with pytest.raises(UserError, match='damaged or was changed'):
        exported.path(2, 'fp32', 'grid_sample')
    (folder / 'decoder.onnx').unlink()
    with pytest.raises(UserError, match='is missing'):
        exported.path(2, 'fp32', 'grid_sample')
    with pytest.raises(UserError, match=r'no decoder_fp16_gather.onnx: export it .*gather'):
        exported.path(4, 'fp16', 'gather')


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'format': 99}, 'reads 3'),
        ({'graphs': [{'nonsense': 1}]}, 'malformed'),
        ({'surprise': 1}, 'malformed'),
        (None, 'cannot be read'),
    ],
)
def test_foreign_manifests_are_refused(
    folder: Path, change: dict[str, object] | None, words: str
) -> None:
    path = folder / 'manifest.json'
    text = '{' if change is None else json.dumps({**json.loads(path.read_text()), **change})
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        ExportedWeights.load(folder)


def test_a_graph_cannot_lie_outside_the_folder(folder: Path) -> None:
    path = folder / 'manifest.json'
    values = json.loads(path.read_text())
    values['graphs'][0]['file'] = '../detector.onnx'
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match='missing'):
        ExportedWeights.load(folder).path(None, 'fp32', 'grid_sample')


def test_a_folder_that_is_no_export_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='handos export'):
        ExportedWeights.load(tmp_path)


def test_file_names() -> None:
    assert graph_file_name('detector', 'fp32', 'grid_sample') == 'detector.onnx'
    assert graph_file_name('decoder', 'fp32', 'grid_sample') == 'decoder.onnx'
    assert graph_file_name('decoder', 'fp16', 'plugin') == 'decoder_fp16_plugin.onnx'


def test_gates_travel_with_the_manifest(folder: Path) -> None:
    gate = AccuracyGate('int8', 10, 12, 0.005, {'a.found': 0.001, 'a.pck': -0.2}, {'a.found': 0.9})
    exported = replace(ExportedWeights.load(folder), gates=(gate,))
    (folder / 'manifest.json').write_text(exported.to_json())
    again = ExportedWeights.load(folder)
    assert again == exported
    assert again.gate('int8') == gate
    assert again.gate('fp16') is None
    assert gate.worst == 0.001


@pytest.mark.parametrize(
    ('flags', 'expected'), [('fma avx512_vnni', 'int8'), ('fp asimddp', 'int8'), ('avx2', 'fp32')]
)
def test_8_bits_are_for_cpus_that_have_their_products(
    folder: Path, flags: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / 'cpuinfo').write_text(f'model name : some\nflags : {flags}\n')
    can = arithmetic.has_int8_products(folder / 'cpuinfo')
    monkeypatch.setattr(arithmetic, 'has_int8_products', lambda: can)
    exported = ExportedWeights.load(folder)
    assert arithmetic.fastest_on_cpu(exported) == 'fp32'  # not quantised
    assert 'not quantised' in str(arithmetic.why_not_int8(exported))
    gate = AccuracyGate('int8', 1, 1, 0.005, {'a.found': 0.0}, {'a.found': 1.0})
    exported = replace(exported, gates=(gate,))
    assert arithmetic.fastest_on_cpu(exported) == expected
    assert (arithmetic.why_not_int8(exported) is None) == (expected == 'int8')


def test_a_window_is_read_back_as_it_was_written(folder: Path) -> None:
    assert ExportedWeights.load_window(folder) is None
    whole = ExportedWeights.load(folder)
    assert (whole.whole_hw, whole.manifest.name) == (whole.input_size_hw, 'manifest.json')
    place = WindowPlace((96, 128), (0, 32))
    written = replace(whole, input_size_hw=(64, 64), window=place)
    written.manifest.write_text(written.to_json())
    window = ExportedWeights.load_window(folder)
    assert window == written
    image = np.arange(96 * 128 * 3, dtype=np.uint32).astype(np.uint8).reshape(96, 128, 3)
    assert (window.seen(image) == image[0:64, 32:96]).all() and whole.seen(image) is image
    with pytest.raises(UserError, match=r'has no detector_window_fp16\.onnx'):
        window.path(None, 'fp16', 'grid_sample')


@pytest.mark.parametrize('place', [{}, {'whole_hw': 3, 'corner_px': [0, 0]}, 'middle'])
def test_a_malformed_window_is_told(folder: Path, place: object) -> None:
    values = json.loads((folder / 'manifest.json').read_text()) | {'window': place}
    (folder / 'window.json').write_text(json.dumps(values))
    with pytest.raises(UserError, match=r'window\.json is malformed'):
        ExportedWeights.load_window(folder)


@pytest.mark.parametrize('name', ['../secret', '/etc/passwd', 'gone.onnx', 'decoder.onnx'])
def test_a_graph_may_only_read_files_beside_it(folder: Path, name: str) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), 'w')
    tensor.ClearField('raw_data')
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value=name)
    graph = helper.make_graph([], 'g', [], [], [tensor])
    path = folder / 'detector.onnx'
    path.write_bytes(helper.make_model(graph).SerializeToString())
    (folder.parent / 'secret').write_bytes(b'')
    assert files_beside(path.read_bytes()) == {name}
    exported = ExportedWeights.load(folder)
    first = replace(exported.graphs[0], sha256=sha256(path))
    exported = replace(exported, graphs=(first, *exported.graphs[1:]))
    if name == 'decoder.onnx':
        assert exported.path(None, 'fp32', 'grid_sample') == path
        return
    with pytest.raises(UserError, match='which is not beside it'):
        exported.path(None, 'fp32', 'grid_sample')
