"""Matrices in bytes: less than half the size, nearly the same products."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from handos_model.export.byte_storage import store_bytes

RANDOM = np.random.default_rng(0)


def products() -> onnx.ModelProto:
    """One matrix on each side of a product, one transposed, and three that stay as they are."""
    matrices = {
        'right': RANDOM.normal(0, 1, (64, 96)) * np.logspace(-3, 0, 96),  # outputs of any size
        'transposed': RANDOM.normal(0, 1, (64, 96)),
        'left': RANDOM.normal(0, 1, (80, 64)),
        'small': RANDOM.normal(0, 1, (64, 8)),
        'shared': RANDOM.normal(0, 1, (64, 64)),  # of rows here and columns there
        'added': RANDOM.normal(0, 1, (64, 64)),
    }
    constants = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in matrices.items()
    ]
    node = helper.make_node
    nodes = [
        node('MatMul', ['x', 'right'], ['a']),
        node('Gemm', ['a', 'transposed'], ['b'], transB=1),
        node('MatMul', ['left', 'b'], ['c']),
        node('MatMul', ['c', 'small'], ['d']),
        node('MatMul', ['c', 'shared'], ['e']),
        node('Gemm', ['e', 'shared'], ['f'], transB=1),
        node('MatMul', ['shared', 'b'], ['g']),
        node('Add', ['g', 'added'], ['h']),
    ]

    def info(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, 'products', [info('x', 64, 64)],
        [info('d', 80, 8), info('f', 80, 64), info('h', 64, 64)], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def test_large_matrices_of_products_become_bytes() -> None:
    before = products()
    after = store_bytes(before)
    stored = {item.name: item.data_type for item in after.graph.initializer}
    assert {name for name, kind in stored.items() if kind == TensorProto.INT8} == {
        'right_bytes',
        'transposed_bytes',
        'left_bytes',
    }
    assert stored.keys() >= {'small', 'shared', 'added'}
    assert stored.keys().isdisjoint({'right', 'transposed', 'left'})
    assert before.graph.initializer[0].name == 'right'  # the copy was changed
    x = RANDOM.normal(0, 1, (64, 64)).astype(np.float32)
    expected, found = (
        ort.InferenceSession(model.SerializeToString()).run(None, {'x': x})
        for model in (before, after)
    )
    for one, other in zip(expected, found, strict=True):
        assert 0 < np.sqrt(np.mean((one - other) ** 2)) < 0.02 * one.std()
