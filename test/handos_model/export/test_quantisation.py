"""8-bit convolutions: which nodes are rounded, and that they compute nearly the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from handos_model.backends.onnxruntime import session_options
from handos_model.export import rounding_plan
from handos_model.export.quantisation import observe, quantised
from handos_model.export.rounding_plan import plan, prepared, widened

RANDOM = np.random.default_rng(0)


def block() -> onnx.ModelProto:
    """Pad and Conv, Clip, a residual, a joined pair, a long product, and a readout."""
    weights = {
        'first': RANDOM.normal(0, 0.3, (8, 3, 3, 3)), 'first_bias': RANDOM.normal(0, 0.1, 8),
        'deep': RANDOM.normal(0, 0.3, (8, 1, 3, 3)), 'narrow': RANDOM.normal(0, 0.3, (8, 8, 1, 1)),
        'last': RANDOM.normal(0, 0.3, (4, 16, 1, 1)),
        'maps.weight': RANDOM.normal(0, 1, (2, 4, 1, 1)),
        'product': RANDOM.normal(0, 1, (6, 5)), 'zero': np.array(0.0), 'six': np.array(6.0),
    }  # fmt: skip
    whole = {'pads': [0, 0, 0, 0, 0, 0, 1, 1], 'rows': [5, 720], 'back': [1, 6, 720]}
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    constants += [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in whole.items()]
    node = helper.make_node
    nodes = [
        node('Pad', ['map', 'pads', 'zero'], ['padded']),
        node('Conv', ['padded', 'first', 'first_bias'], ['a'], 'first', strides=[2, 2]),
        node('Clip', ['a', 'zero', 'six'], ['b']),
        node('Conv', ['b', 'deep'], ['c'], 'deep', pads=[1, 1, 1, 1], group=8),
        node('Relu', ['c'], ['d']),
        node('Conv', ['d', 'narrow'], ['e'], 'narrow'),
        node('Conv', ['b', 'narrow'], ['f'], 'beside'),
        node('Add', ['e', 'f'], ['g']),
        node('Sigmoid', ['g'], ['h']),
        node('Concat', ['g', 'h'], ['i'], axis=1),
        node('Conv', ['i', 'last'], ['j'], 'last'),
        node('Conv', ['j', 'maps.weight'], ['places'], 'readout'),
        node('Reshape', ['points', 'rows'], ['k']),
        node('MatMul', ['product', 'k'], ['l'], 'product'),
        node('Reshape', ['l', 'back'], ['values']),
    ]

    def info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, 'block', [info('map', (1, 3, 12, 16)), info('points', (1, 720, 5))],
        [info('places', (1, 2, 6, 8)), info('values', (1, 6, 720)), info('h', (1, 8, 6, 8))],
        constants, value_info=[info('l', (6, 720))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def feeds(count: int = 8) -> list[dict[str, np.ndarray]]:
    return [
        {
            'map': RANDOM.normal(0, 1, (1, 3, 12, 16)).astype(np.float32),
            'points': RANDOM.normal(0, 1, (1, 720, 5)).astype(np.float32),
        }
        for _ in range(count)
    ]


@pytest.fixture
def small(tmp_path: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = block()
    return model, quantised(model, observe(model, feeds(), tmp_path))


def test_rounded_graphs_compute_nearly_the_same(
    small: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    sessions = [
        ort.InferenceSession(
            model.SerializeToString(), session_options(2), providers=['CPUExecutionProvider']
        )
        for model in small
    ]
    for feed in feeds(3):
        expected, found = (session.run(None, feed) for session in sessions)
        for one, other in zip(expected, found, strict=True):
            assert 0 < np.sqrt(np.mean((one - other) ** 2)) < 0.05 * one.std()


def test_convolutions_are_rounded_and_readouts_are_not(
    small: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    graph = small[1].graph
    producer = {name: node for node in graph.node for name in node.output}
    kinds = [node.op_type for node in graph.node]
    assert not {'Pad', 'Clip', 'Relu', 'MatMul'} & set(kinds)
    for node in graph.node:
        if node.op_type in ('Conv', 'Add', 'Concat'):
            sources = [producer.get(name) for name in node.input if name != 'maps.weight']
            assert all(source.op_type == 'DequantizeLinear' for source in sources), node.name
    assert producer['h'].op_type == 'Sigmoid'
    stored = {item.name: item.data_type for item in graph.initializer}
    assert stored['maps.weight'] == TensorProto.FLOAT
    assert sum(kind == TensorProto.INT8 for kind in stored.values()) >= 6


def test_the_convolutions_next_to_a_picture_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding_plan, '_FIRST', 3)
    model = block()
    model.graph.input[0].name = 'image'
    model.graph.node[0].input[0] = 'image'
    kept = {'first', 'deep', 'narrow'}  # by their weights, which another convolution shares
    nodes = plan(prepared(model)).nodes.values()
    weights = {node.input[1] for node in nodes if node.op_type == 'Conv'}
    assert weights and not weights & kept


def test_moved_values_keep_one_scale(small: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    constants = {item.name: numpy_helper.to_array(item) for item in small[1].graph.initializer}
    assert constants['g_scale'] == constants['i_scale'] == constants['h_scale']
    assert constants['b_zero'] == 0  # what was clipped at zero


def test_weights_of_sixteen_bits_are_widened() -> None:
    model = block()
    item = next(item for item in model.graph.initializer if item.name == 'first')
    halves = numpy_helper.to_array(item).astype(np.float16)
    item.CopyFrom(numpy_helper.from_array(halves, 'first_half'))
    cast = helper.make_node('Cast', ['first_half'], ['first'], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    wide = widened(model).graph
    assert 'Cast' not in {node.op_type for node in wide.node}
    kept = next(item for item in wide.initializer if item.name == 'first')
    np.testing.assert_array_equal(numpy_helper.to_array(kept), halves.astype(np.float32))
