"""What of an ONNX graph is to be rounded to 8 bits, and the graph made ready for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

CLIPS = {'Relu', 'Clip'}
_MOVES = {'Concat', 'Resize', 'Split'}  # their outputs have the scale of their inputs
_READOUTS = ('maps.weight',)  # weights of convolutions that tell places and depths: they stay
_FIRST = 9  # convolutions after the picture that stay: rounded, they err most and gain least
_LONG = 512  # columns of a product with a constant that is written as a convolution


@dataclass(frozen=True)
class Plan:
    """What is to be rounded."""

    nodes: dict[int, onnx.NodeProto]  # by their place in the graph
    tensors: dict[str, str]  # quantised values, each with the one whose scale it shares
    clipped: set[str]  # values whose own range does what a Relu or Clip did


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with padding inside its convolutions, and clips named by what they clip.

    A convolution whose only reader is a Relu or Clip writes the clipped value's name: the range of
    an unsigned value that starts at zero clips as they do.
    """
    model = widened(model)
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    readers = _readers(model)
    producer = {name: node for node in graph.node for name in node.output}
    gone: set[int] = set()
    for node in graph.node:
        if node.op_type != 'Conv':
            continue
        pad = producer.get(node.input[0])
        if pad is not None and pad.op_type == 'Pad' and readers[node.input[0]] == 1:
            before, after = np.split(constants[pad.input[1]].astype(int), 2)
            around = np.concatenate([before[2:], after[2:]])
            for attribute in node.attribute:
                if attribute.name == 'pads':
                    around += np.array(attribute.ints)
            attributes = [a for a in node.attribute if a.name not in ('pads', 'auto_pad')]
            del node.attribute[:]
            node.attribute.extend([*attributes, helper.make_attribute('pads', around.tolist())])
            node.input[0] = pad.input[0]
            gone.add(id(pad))
    replace_nodes(graph, [node for node in graph.node if id(node) not in gone])
    _products_as_convolutions(model)
    return model


def _products_as_convolutions(model: onnx.ModelProto) -> None:
    """Constant [O,I] @ value [I,N], read by Reshapes only, as a 1x1 convolution of [1,I,N,1]."""
    graph = model.graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    constants = {item.name: item for item in graph.initializer}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    nodes, images = [], dict[str, str]()
    for node in graph.node:
        shape = shapes.get(node.output[0], [])
        is_long = len(shape) == 2 and shape[1] >= _LONG and readers[node.output[0]] == {'Reshape'}
        if node.op_type != 'MatMul' or node.input[0] not in constants or not is_long:
            nodes.append(node)
            continue
        weight, value = numpy_helper.to_array(constants[node.input[0]]), node.input[1]
        if value not in images:
            images[value] = f'{value}_image'
            to = np.array([1, weight.shape[1], shape[1], 1], np.int64)
            graph.initializer.append(numpy_helper.from_array(to, f'{value}_shape'))
            nodes.append(helper.make_node('Reshape', [value, f'{value}_shape'], [images[value]]))
        kernel = numpy_helper.from_array(weight[..., None, None], f'{node.input[0]}_kernel')
        graph.initializer.append(kernel)
        nodes.append(
            helper.make_node('Conv', [images[value], kernel.name], node.output, node.name)
        )
    replace_nodes(graph, nodes)


def _readers(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes and outputs read each value."""
    count: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            count[name] = count.get(name, 0) + 1
    for value in model.graph.output:
        count[value.name] = count.get(value.name, 0) + 1
    return count


def plan(model: onnx.ModelProto) -> Plan:
    """Convolutions that are to be rounded, and what stands between two of them."""
    graph = model.graph
    constants = {item.name for item in graph.initializer}
    kept = {*_READOUTS, *_first_weights(graph)}
    readers = _readers(model)
    reading: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            reading.setdefault(name, []).append(node)
    nodes: dict[int, onnx.NodeProto] = {}
    rounded: set[str] = set()  # outputs of quantised nodes
    clipped: set[str] = set()
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while group.setdefault(name, name) != name:
            name = group[name]
        return name

    for index, node in enumerate(graph.node):
        values = [name for name in node.input if name and name not in constants]
        if node.op_type == 'Conv' and node.input[1] in constants - kept:
            nodes[index] = node
            root(node.input[0])
            clip = reading.get(node.output[0], [])
            if len(clip) == 1 and clip[0].op_type in CLIPS and readers[node.output[0]] == 1:
                clipped.add(clip[0].output[0])
                root(clip[0].output[0])
            else:
                rounded.add(node.output[0])
                root(node.output[0])
        elif node.op_type in CLIPS and node.output[0] in clipped:
            nodes[index] = node
            rounded.add(node.output[0])
        elif node.op_type == 'Add' and len(values) == 2 and set(values) <= rounded:
            nodes[index] = node
            rounded.add(node.output[0])
            root(node.output[0])
        elif node.op_type in _MOVES and _leads_to_convolution(node, reading):
            nodes[index] = node
            used = [*values[:1], *node.output] if node.op_type != 'Concat' else [
                *values, *node.output
            ]  # fmt: skip
            rounded |= set(node.output)
            for name in used[1:]:
                group[root(name)] = root(used[0])
    return Plan(nodes, {name: root(name) for name in list(group)}, clipped)


def _first_weights(graph: onnx.GraphProto) -> list[str]:
    """Weights of the convolutions that are nearest to the picture, in a graph that reads one."""
    if 'image' not in {value.name for value in graph.input}:
        return []
    return [node.input[1] for node in graph.node if node.op_type == 'Conv'][:_FIRST]


def _leads_to_convolution(node: onnx.NodeProto, reading: Mapping[str, list[Any]]) -> bool:
    """Whether a convolution reads what the node moves, perhaps moved again."""
    after = [reader for name in node.output for reader in reading.get(name, [])]
    return any(
        reader.op_type == 'Conv'
        or (reader.op_type in _MOVES and _leads_to_convolution(reader, reading))
        for reader in after
    )


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose weights are float32 in the file, too."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    constants = {item.name: item for item in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == 'Cast' and node.input[0] in constants:
            values = numpy_helper.to_array(constants[node.input[0]]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)
    return wide


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Give the graph other nodes, and drop the constants that none of them reads."""
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
    used = {name for node in copies for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
