"""Half precision inside an ONNX graph, typed so that a strongly typed runtime obeys it.

Matrix products and convolutions, and the element-wise nodes between them, go to float16. What
loses by it stays float32: normalisation, softmax, exponentials, reductions, sampling, every node
between the last matrix product and a sampling location, a ranking or an output, and products that
yield coordinates. Inputs and outputs of the graph keep their types.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from handos_model.export.plugin_sampling import PLUGIN

# Element type and shape of every value by its name.
ValueTypes: TypeAlias = dict[str, tuple[int, tuple[int, ...]]]

_PRODUCTS = {'Conv', 'MatMul', 'Gemm'}
_BETWEEN = {
    'Add', 'AveragePool', 'Concat', 'Expand', 'Flatten', 'Gelu', 'MaxPool', 'Mul', 'Relu',
    'Reshape', 'Resize', 'Sigmoid', 'Slice', 'Split', 'Squeeze', 'Tanh', 'Transpose', 'Unsqueeze',
}  # fmt: skip
# Their further inputs are shapes, axes and indices, not values.
_ONE_VALUE = {'Expand', 'Reshape', 'Resize', 'Slice', 'Split', 'Squeeze', 'Unsqueeze'}
_LOCATIONS = {'GridSample': (1,), 'TopK': (0,), 'Floor': (0,), PLUGIN: (3,)}  # exact inputs
_MESH = 'mesh'  # the constant that the decoder's vertices are a product with
_COORDINATES = 4  # a product with at most so many columns or terms is about points or boxes


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` with float16 in it, as the module says."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True, data_prop=True)
    types = _value_types(inferred)
    chosen = _choose(half, types)
    _retype(half, chosen, types)
    onnx.checker.check_model(half)
    return half


def _value_types(model: onnx.ModelProto) -> ValueTypes:
    """Element type and shape of every value."""
    graph = model.graph
    types = {
        value.name: (
            value.type.tensor_type.elem_type,
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    types |= {item.name: (item.data_type, tuple(item.dims)) for item in graph.initializer}
    return types


def _choose(model: onnx.ModelProto, types: ValueTypes) -> set[int]:
    """Indices of the nodes that go to float16."""
    nodes = model.graph.node
    producer = {name: i for i, node in enumerate(nodes) for name in node.output}

    def is_float(name: str) -> bool:
        return bool(types.get(name, (0, ()))[0] == TensorProto.FLOAT)

    chosen = set()
    for i, node in enumerate(nodes):
        if not is_float(node.output[0]):
            continue
        shapes = [types[name][1] for name in (node.output[0], node.input[0]) if name in types]
        coarse = all(not shape or shape[-1] > _COORDINATES for shape in shapes)
        product = node.op_type in _PRODUCTS and coarse and _MESH not in node.input
        if product or (node.op_type == 'Conv') or node.op_type in _BETWEEN:
            chosen.add(i)

    exact = [value.name for value in model.graph.output]
    for node in nodes:
        exact += [node.input[slot] for slot in _LOCATIONS.get(node.op_type, ())]
    seen: set[int] = set()
    while exact:
        index = producer.get(exact.pop())
        if index is None or index in seen:
            continue
        seen.add(index)
        node = nodes[index]
        if index in chosen and node.op_type in _PRODUCTS:
            continue
        chosen.discard(index)
        exact += list(node.input)
    return _without_detours(model, chosen, producer)


def _without_detours(
    model: onnx.ModelProto, chosen: set[int], producer: dict[str, int]
) -> set[int]:
    """Element-wise nodes that no half product feeds, or that feed none, gain nothing by it."""
    nodes, fed, useful = model.graph.node, set[int](), set[int]()
    for i, node in enumerate(nodes):  # producers come first
        from_half = any(producer.get(node.input[slot]) in fed for slot in _value_inputs(node))
        if i in chosen and (node.op_type in _PRODUCTS or from_half):
            fed.add(i)
    for i in reversed(range(len(nodes))):
        if i in fed and (nodes[i].op_type in _PRODUCTS or i in useful):
            useful.add(i)
            useful |= {producer[name] for name in nodes[i].input if name in producer}
    return fed & useful


def _value_inputs(node: onnx.NodeProto) -> list[int]:
    """Slots of a chosen node's inputs that are values."""
    return [0] if node.op_type in _ONE_VALUE else list(range(len(node.input)))


def _retype(model: onnx.ModelProto, chosen: set[int], types: ValueTypes) -> None:
    """Insert casts where precision changes, and convert the constants that chosen nodes read."""
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    half_values = {
        name
        for i in chosen
        for name in graph.node[i].output
        if types.get(name, (0,))[0] == TensorProto.FLOAT
    }
    nodes: list[onnx.NodeProto] = []
    made: dict[tuple[str, int], str] = {}

    def cast(name: str, to: int) -> str:
        """The value `name` in the other precision."""
        if (name, to) not in made:
            other = f'{name}_{"half" if to == TensorProto.FLOAT16 else "float"}'
            made[name, to] = other
            if name in constants:
                array = numpy_helper.to_array(constants[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(array, other))
            else:
                nodes.append(helper.make_node('Cast', [name], [other], f'cast_{other}', to=to))
        return made[name, to]

    for i, node in enumerate(graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        slots = _value_inputs(node) if i in chosen else range(len(node.input))
        for slot in slots:
            name = node.input[slot]
            if types.get(name, (0,))[0] != TensorProto.FLOAT:
                continue
            if i in chosen and name not in half_values:
                copy.input[slot] = cast(name, TensorProto.FLOAT16)
            elif i not in chosen and name in half_values:
                copy.input[slot] = cast(name, TensorProto.FLOAT)
        nodes.append(copy)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    for value in graph.value_info:
        if value.name in half_values:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
