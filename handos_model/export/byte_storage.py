"""Matrices of 8 bits in files that compute in 32: for graphs that are rounded anyway.

Each large constant matrix of a product is signed bytes and a scale for each of its outputs; a Cast
and a Mul, which runtimes do once, when they load the graph, make float32 of them.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from handos_model.export.rounding_plan import replace_nodes

_SMALLEST = 4096  # elements: below, little is saved
_PRODUCTS = {'MatMul', 'Gemm'}


def store_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model`, whose constants are float32, with its large matrices in bytes."""
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    graph = smaller.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    widening = []
    for item in list(graph.initializer):
        products = readers.get(item.name, [])
        is_large = len(item.dims) == 2 and np.prod(item.dims) >= _SMALLEST
        if item.data_type != TensorProto.FLOAT or not is_large:
            continue
        if {node.op_type for node in products} - _PRODUCTS:
            continue
        values, name = numpy_helper.to_array(item), item.name
        outputs = {_outputs(node, name) for node in products}
        if len(outputs) != 1:
            continue
        scale = np.abs(values).max(axis=1 - outputs.pop(), keepdims=True) / 127
        scale = np.maximum(scale, np.float32(1e-12))
        graph.initializer.append(numpy_helper.from_array(scale, f'{name}_scale'))
        whole = np.round(values / scale).astype(np.int8)
        item.CopyFrom(numpy_helper.from_array(whole, f'{name}_bytes'))
        widening += [
            helper.make_node('Cast', [f'{name}_bytes'], [f'{name}_whole'], to=TensorProto.FLOAT),
            helper.make_node('Mul', [f'{name}_whole', f'{name}_scale'], [name]),
        ]
    replace_nodes(graph, [*widening, *graph.node])
    onnx.checker.check_model(smaller)
    return smaller


def _outputs(product: onnx.NodeProto, name: str) -> int:
    """The axis of the matrix `name` that is one of the product's result."""
    if product.input[0] == name:
        return 0
    transposed = any(a.name == 'transB' and a.i for a in product.attribute)
    return 0 if transposed else 1
