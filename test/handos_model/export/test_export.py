"""Exported graphs: operators, shapes, types, determinism, and the gate that refuses wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from tensorrt_operators import assert_fit_for_tensorrt, with_hands

from handos_model.backends.base import EngineOptions
from handos_model.backends.onnxruntime import OnnxGraph, open_engine, session_options
from handos_model.backends.parity import (
    beyond_limits,
    decoder_parity,
    detector_parity,
    made_up_images,
)
from handos_model.errors import UserError
from handos_model.export import exporter as export_module
from handos_model.export.exporter import ExportConfig, export, to_onnx
from handos_model.export.half_precision import to_half
from handos_model.export.plugin_sampling import PLUGIN, PLUGIN_DOMAIN
from handos_model.network.graphs import DECODER_INPUTS, DECODER_OUTPUTS, build_graphs
from handos_model.network.handos import HandOS
from handos_model.weights.exported import ExportedWeights
from handos_model.weights.store import sha256


def assert_says_nothing_of_the_machine(path: Path) -> None:
    content = path.read_bytes()
    for word in (b'/handos_model/', b'site-packages', str(Path.home()).encode() + b'/'):
        assert word not in content


def test_every_graph_is_one_that_tensorrt_s_parser_takes(tiny_weights: Path) -> None:
    exported = ExportedWeights.load(tiny_weights)
    assert len(exported.graphs) == 6
    for graph in exported.graphs:
        path = exported.path(graph.hands, graph.precision, graph.sampling)
        model = onnx.load(path)
        assert_fit_for_tensorrt(model if graph.hands is None else with_hands(model, graph.hands))
        assert_says_nothing_of_the_machine(path)
        assert 'GridSample' in graph.operators
        assert graph.parity  # it was compared


def test_inputs_and_outputs_keep_the_contract_in_both_precisions(tiny_weights: Path) -> None:
    exported = ExportedWeights.load(tiny_weights)
    for precision in ('fp32', 'fp16'):
        detector = onnx.load(exported.path(None, precision, 'grid_sample')).graph
        assert describe(detector.input) == {'image': (TensorProto.UINT8, (1, 96, 128, 3))}
        assert describe(detector.output) == {
            'features': (TensorProto.FLOAT, (1, 252, 32)),
            'queries': (TensorProto.FLOAT, (1, 20, 64)),
            'boxes_cxcywh': (TensorProto.FLOAT, (1, 20, 4)),
            'scores': (TensorProto.FLOAT, (1, 20)),
        }
        decoder = onnx.load(exported.path(2, precision, 'grid_sample')).graph
        assert describe(decoder.input) == {
            'features': (TensorProto.FLOAT, (1, 252, 32)),
            'queries': (TensorProto.FLOAT, ('hands', 64)),
            'boxes_cxcywh': (TensorProto.FLOAT, ('hands', 4)),
        }
        assert describe(decoder.output) == {
            'joints_2d': (TensorProto.FLOAT, ('hands', 21, 2)),
            'visibility': (TensorProto.FLOAT, ('hands', 21)),
            'vertices_m': (TensorProto.FLOAT, ('hands', 778, 3)),
            'joints_m': (TensorProto.FLOAT, ('hands', 21, 3)),
            'translation_m': (TensorProto.FLOAT, ('hands', 3)),
            'right': (TensorProto.FLOAT, ('hands',)),
        }


def describe(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, tuple[int | str, ...]]]:
    return {
        v.name: (
            v.type.tensor_type.elem_type,
            tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in values
    }


def test_half_precision_is_in_the_graph_and_spares_what_must_be_exact(tiny_weights: Path) -> None:
    exported = ExportedWeights.load(tiny_weights)
    model = onnx.load(exported.path(None, 'fp16', 'grid_sample'))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    types |= {item.name: item.data_type for item in model.graph.initializer}
    kinds: dict[str, set[int]] = {}
    for node in model.graph.node:
        kinds.setdefault(node.op_type, set()).add(types.get(node.input[0], 0))
    assert kinds['Conv'] == {TensorProto.FLOAT16}
    for operator in ('LayerNormalization', 'Softmax', 'GridSample', 'TopK'):
        assert TensorProto.FLOAT16 not in kinds[operator], operator
    halves = sum(
        np.prod(item.dims) for item in model.graph.initializer
        if item.data_type == TensorProto.FLOAT16
    )  # fmt: skip
    wholes = sum(
        np.prod(item.dims) for item in model.graph.initializer
        if item.data_type == TensorProto.FLOAT
    )  # fmt: skip
    assert halves > 5 * wholes


@pytest.fixture
def network(make_tiny_network: Callable[[], HandOS]) -> Iterator[HandOS]:
    network = make_tiny_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    yield network
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.long
def test_the_same_weights_give_the_same_files(
    network: HandOS, tiny_weights: Path, tmp_path: Path
) -> None:
    again = export(
        network, tmp_path / 'again', ExportConfig(hands=(1, 2)),
        licence='Apache-2.0', source_sha256='0' * 64,
    )  # fmt: skip
    first = {graph.file: graph.sha256 for graph in ExportedWeights.load(tiny_weights).graphs}
    for graph in again.graphs:
        assert graph.sha256 == first[graph.file]


def test_a_wrong_graph_is_not_written(
    network: HandOS, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(*arguments: object) -> onnx.ModelProto:
        model = onnx.load(tiny_weights / 'detector.onnx')
        for item in model.graph.initializer:
            array = onnx.numpy_helper.to_array(item)
            if array.dtype == np.float32 and array.size > 1000:
                item.CopyFrom(onnx.numpy_helper.from_array(array * 1.5, item.name))
        return model

    monkeypatch.setattr(export_module, 'to_onnx', spoiled)
    folder = tmp_path / 'out'
    folder.mkdir()
    (folder / 'manifest.json').write_text('the old one')
    with pytest.raises(UserError, match=r'detector.onnx differs from torch .*nothing was written'):
        export(network, folder, ExportConfig(), licence='x', source_sha256='0' * 64)
    assert [path.name for path in folder.iterdir()] == ['manifest.json']
    assert (folder / 'manifest.json').read_text() == 'the old one'
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def decoder_inputs(
    network: HandOS, hands: int
) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The decoder's graph and inputs for it from a real run of the detector."""
    detector, decoder = build_graphs(network)
    image = torch.from_numpy(made_up_images((96, 128), 1)[0])[None]
    with torch.no_grad():
        features, queries, boxes, _ = detector(image)
    return decoder, (features, queries[0, :hands], boxes[0, :hands])


def test_the_gather_variant_computes_the_same_without_gridsample(
    network: HandOS, tmp_path: Path
) -> None:
    decoder, inputs = decoder_inputs(network, 2)
    with export_module._sampling(network, 'gather'):
        model = to_onnx(decoder, inputs, DECODER_INPUTS, DECODER_OUTPUTS)
    assert 'GridSample' not in {node.op_type for node in model.graph.node}
    for precision, variant in (('fp32', model), ('fp16', to_half(model))):
        assert_fit_for_tensorrt(with_hands(variant, 2))
        path = tmp_path / f'{precision}.onnx'
        onnx.save(variant, path)
        with torch.no_grad():
            truth = dict(zip(DECODER_OUTPUTS, decoder(*inputs), strict=True))
        graph = OnnxGraph(path, session_options(2, 2))
        arrays = (np.ascontiguousarray(value.numpy()) for value in inputs)
        found = graph.infer(dict(zip(DECODER_INPUTS, arrays, strict=True)))
        reference = {name: value.numpy() for name, value in truth.items()}
        assert not beyond_limits(decoder_parity(reference, found, (96, 128)), precision)


def test_the_plugin_variant_has_the_plugin_s_inputs(network: HandOS) -> None:
    decoder, inputs = decoder_inputs(network, 2)
    with export_module._sampling(network, 'plugin'):
        model = to_onnx(decoder, inputs, DECODER_INPUTS, DECODER_OUTPUTS)
    traced = describe(model.graph.value_info)  # ONNX knows nothing of the plugin's output
    for variant in (with_hands(model, 2), with_hands(to_half(model), 2)):
        assert_fit_for_tensorrt(variant, frozenset({PLUGIN}))
        nodes = [node for node in variant.graph.node if node.op_type == PLUGIN]
        assert len(nodes) == 2  # one a layer
        known = onnx.shape_inference.infer_shapes(variant).graph
        types = describe(known.value_info) | {
            item.name: (item.data_type, tuple(item.dims)) for item in known.initializer
        }
        for node in nodes:
            assert node.domain == PLUGIN_DOMAIN
            values, shapes, starts, locations, weights = (types[name] for name in node.input)
            assert values == (TensorProto.FLOAT, (1, 252, 4, 8))
            assert shapes == (TensorProto.INT32, (3, 2))
            assert starts == (TensorProto.INT32, (3,))
            assert locations[0] == TensorProto.FLOAT and locations[1][2:] == (4, 3, 4, 2)
            assert weights[0] == TensorProto.FLOAT and weights[1][2:] == (4, 3, 4)
            kind, (one, _, heads, channels) = traced[node.output[0]]
            assert (kind, one, heads, channels) == (TensorProto.FLOAT, 1, 4, 8)
            assert {a.name for a in node.attribute} >= {'plugin_version'}
        assert 'GridSample' not in {node.op_type for node in variant.graph.node}


def test_parity_compares_sets_not_rows() -> None:
    random = np.random.default_rng(0)
    reference = {
        'features': random.normal(size=(1, 30, 8)),
        'queries': random.normal(size=(1, 12, 8)),
        'boxes_cxcywh': random.uniform(0.2, 0.6, (1, 12, 4)),
        'scores': np.array([[0.9, 0.8] + [0.01] * 10]),
    }
    order = random.permutation(12)
    shuffled = {
        name: value if name == 'features' else value[:, order] for name, value in reference.items()
    }
    assert set(detector_parity(reference, shuffled, (480, 640)).values()) == {0.0}
    moved = {**shuffled, 'boxes_cxcywh': shuffled['boxes_cxcywh'] + 1 / 640}
    assert detector_parity(reference, moved, (480, 640))['boxes_px'] == pytest.approx(1)
    lost = {**shuffled, 'boxes_cxcywh': shuffled['boxes_cxcywh'] + 0.3}
    assert detector_parity(reference, lost, (480, 640))['unmatched'] == 1


def test_parity_speaks_of_pixels_and_millimetres() -> None:
    zeros = {
        'joints_2d': np.zeros((1, 21, 2)), 'joints_m': np.zeros((1, 21, 3)),
        'vertices_m': np.zeros((1, 778, 3)), 'visibility': np.zeros((1, 21)),
        'translation_m': np.array([[0, 0, 2.0]]), 'right': np.zeros(1),
    }  # fmt: skip
    other = {name: value + 0.001 for name, value in zeros.items()}
    errors = decoder_parity(zeros, other, (480, 640))
    assert errors['joints_px'] == pytest.approx(0.64)
    assert errors['joints_mm'] == errors['vertices_mm'] == pytest.approx(1)
    assert errors['translation_relative'] == pytest.approx(0.0005)
    assert errors['right'] == pytest.approx(0.001)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'precisions': ('int8',)}, 'int8'),
        ({'samplings': ()}, 'none'),
        ({'hands': (0,)}, 'from 1 to 32'),
    ],
)
def test_what_cannot_be_exported_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ExportConfig(**changes)  # type: ignore[arg-type]


# Windows


def test_a_window_s_graphs_have_their_weights_in_those_of_the_whole(tiny_weights: Path) -> None:
    whole, window = ExportedWeights.load(tiny_weights), ExportedWeights.load_window(tiny_weights)
    assert window is not None and window.window is not None
    assert (window.input_size_hw, window.whole_hw) == ((64, 64), (96, 128))
    assert window.variants() == whole.variants()
    for precision, sampling in window.variants():
        for hands in (None, *window.hands(precision, sampling)):
            path = window.path(hands, precision, sampling)
            beside = tiny_weights / path.name.replace('_window', '')
            assert path.stat().st_size < 0.6 * beside.stat().st_size
            stored = onnx.load(path, load_external_data=False)
            assert sha256(beside) in stored.doc_string
            elsewhere = [t for t in stored.graph.initializer if t.external_data]
            assert {
                e.value for t in elsewhere for e in t.external_data if e.key == 'location'
            } == {beside.name}
            assert len(elsewhere) > 10
            onnx.checker.check_model(str(path))
            assert_says_nothing_of_the_machine(path)
        assert all(graph.parity for graph in window.graphs)


def test_a_window_s_detector_keeps_the_contract(tiny_weights: Path) -> None:
    window = ExportedWeights.load_window(tiny_weights)
    assert window is not None
    detector = onnx.load(window.path(None, 'fp32', 'grid_sample')).graph
    assert describe(detector.input) == {'image': (TensorProto.UINT8, (1, 64, 64, 3))}
    assert describe(detector.output) == {
        'features': (TensorProto.FLOAT, (1, 84, 32)),
        'queries': (TensorProto.FLOAT, (1, 5, 64)),
        'boxes_cxcywh': (TensorProto.FLOAT, (1, 5, 4)),
        'scores': (TensorProto.FLOAT, (1, 5)),
    }


def test_what_a_window_graph_sees_is_told_in_the_whole(tiny_weights: Path) -> None:
    engine = open_engine(tiny_weights, EngineOptions(precision='fp32', max_hands=1, threads=1))
    assert engine.window is not None
    (top, left), side = engine.window.place.corner_px, 64
    for image in made_up_images((64, 64)):
        found = engine.window.graphs.detector.infer({'image': image[None]})
        size = np.array([128, 96])
        middles = found['boxes_cxcywh'][0, :, :2] * size
        assert (middles > np.array([left, top]) - side / 2).all()
        assert (middles < np.array([left, top]) + 1.5 * side).all()


def test_no_window_where_none_fits_and_none_that_is_left_over(
    network: HandOS, tmp_path: Path
) -> None:
    folder = tmp_path / 'weights'
    for window_px, there in ((64, True), (0, False)):
        config = ExportConfig(hands=(1,), window_px=window_px)
        export(network, folder, config, licence='x', source_sha256='0' * 64)
        assert (ExportedWeights.load_window(folder) is not None) == there
        engine = open_engine(folder, EngineOptions(max_hands=1, threads=1))
        assert (engine.window is not None) == there
    assert open_engine(tmp_path / 'weights', EngineOptions(window=False)).window is None
