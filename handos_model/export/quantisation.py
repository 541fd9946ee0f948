"""8-bit convolutions in an ONNX graph, as pairs of QuantizeLinear and DequantizeLinear.

Convolutions, and what stands between two of them and only moves or adds values, get unsigned
8-bit activations (a scale and zero point a tensor) and signed 8-bit weights (a scale a channel).
Whatever else computes stays float32: attention, normalisation, sampling, boxes, heads. Runtimes
fuse each pair into the operator beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from handos_model.backends.base import Array

_MOVES = {'Concat', 'Resize', 'Split'}  # their outputs have the scale of their inputs
_CLIPS = {'Relu', 'Clip'}
_READOUTS = ('maps.weight',)  # weights of convolutions that tell places and depths: they stay
_LONG = 512  # columns of a product with a constant that is written as a convolution
_SAMPLES_AN_IMAGE = 4096  # values of a tensor that its range is estimated from
_OUTLIERS = 1e-4  # share of values at either end that may saturate


@dataclass(frozen=True)
class Observed:
    """What values a tensor took."""

    low: float
    high: float
    channel_means: npt.NDArray[np.float64]  # [C] of [1,C,...]


@dataclass(frozen=True)
class _Plan:
    """What is to be quantised."""

    nodes: dict[int, onnx.NodeProto]  # by their place in the graph
    tensors: dict[str, str]  # quantised values, each with the one whose scale it shares
    clipped: set[str]  # values whose own range does what a Relu or Clip did


def observe(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, Array]], folder: Path
) -> dict[str, Observed]:
    """Every value that `quantised` rounds, over the inputs `feeds`.

    `folder` is for a temporary file.
    """
    import onnxruntime as ort

    model = _prepared(model)
    names = sorted(_plan(model).tensors)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    outputs = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in outputs
    )
    path = folder / 'watched.onnx'
    onnx.save(watched, path)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    path.unlink()
    seen: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    means: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    random = np.random.default_rng(0)
    for feed in feeds:
        for name, value in zip(names, session.run(names, dict(feed)), strict=True):
            flat = value.ravel()
            seen[name].append(flat[random.integers(0, flat.size, _SAMPLES_AN_IMAGE)])
            means[name].append(value[0].reshape(value.shape[1], -1).mean(1, dtype=np.float64))
    return {
        name: Observed(*_range(np.concatenate(seen[name])), np.mean(means[name], axis=0))
        for name in names
    }


def quantised(model: onnx.ModelProto, observed: Mapping[str, Observed]) -> onnx.ModelProto:
    """A copy of `model` with 8-bit convolutions in it, as the module says."""
    model = _prepared(model)
    plan = _plan(model)
    own = {name: (observed[name].low, observed[name].high) for name in plan.tensors}
    shared: dict[str, tuple[float, float]] = {}
    for name, group in plan.tensors.items():
        low, high = shared.get(group, (0.0, 0.0))
        shared[group] = (min(low, own[name][0]), max(high, own[name][1]))
    of_values = {
        name: own[name] if name in plan.clipped else shared[group]
        for name, group in plan.tensors.items()
    }
    means = {name: observed[name].channel_means for name in plan.tensors}
    writer = _Writer(model, of_values, means)
    for index, node in enumerate(model.graph.node):
        writer.add(node, index in plan.nodes)
    result = writer.finish()
    onnx.checker.check_model(result)
    return result


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
    _replace_nodes(graph, nodes)
    return wide


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    low, high = np.quantile(values, [_OUTLIERS, 1 - _OUTLIERS])
    return min(float(low), 0.0), max(float(high), 0.0)


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
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
    _replace_nodes(graph, [node for node in graph.node if id(node) not in gone])
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
    _replace_nodes(graph, nodes)


def _readers(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes and outputs read each value."""
    count: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            count[name] = count.get(name, 0) + 1
    for value in model.graph.output:
        count[value.name] = count.get(value.name, 0) + 1
    return count


def _plan(model: onnx.ModelProto) -> _Plan:
    graph = model.graph
    constants = {item.name for item in graph.initializer}
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
        if node.op_type == 'Conv' and node.input[1] in constants - set(_READOUTS):
            nodes[index] = node
            root(node.input[0])
            clip = reading.get(node.output[0], [])
            if len(clip) == 1 and clip[0].op_type in _CLIPS and readers[node.output[0]] == 1:
                clipped.add(clip[0].output[0])
                root(clip[0].output[0])
            else:
                rounded.add(node.output[0])
                root(node.output[0])
        elif node.op_type in _CLIPS and node.output[0] in clipped:
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
    return _Plan(nodes, {name: root(name) for name in list(group)}, clipped)


def _leads_to_convolution(node: onnx.NodeProto, reading: Mapping[str, list[Any]]) -> bool:
    """Whether a convolution reads what the node moves, perhaps moved again."""
    after = [reader for name in node.output for reader in reading.get(name, [])]
    return any(
        reader.op_type == 'Conv'
        or (reader.op_type in _MOVES and _leads_to_convolution(reader, reading))
        for reader in after
    )


class _Writer:
    """Copies a graph node by node, rounding values where they are first needed rounded."""

    def __init__(
        self,
        model: onnx.ModelProto,
        ranges: Mapping[str, tuple[float, float]],
        means: Mapping[str, npt.NDArray[np.float64]],
    ) -> None:
        self._model, self._ranges, self._means = model, ranges, means
        self._constants = {
            item.name: numpy_helper.to_array(item) for item in model.graph.initializer
        }
        self._nodes: list[onnx.NodeProto] = []
        self._made: list[onnx.TensorProto] = []
        self._rounded: dict[str, str] = {}  # value -> its dequantised twin
        self._instead: dict[str, str] = {}  # value that is rounded for all its readers
        self._scales: dict[str, tuple[np.float32, np.uint8]] = {}

    def add(self, node: onnx.NodeProto, is_quantised: bool) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if not is_quantised:
            for slot, name in enumerate(copy.input):
                copy.input[slot] = self._instead.get(name, name)
            self._nodes.append(copy)
            return
        if copy.op_type in _CLIPS:  # the convolution before it saturates instead
            source = self._nodes[-1]
            assert source.output[0] == copy.input[0]
            source.output[0] = copy.output[0]
            self._instead[copy.output[0]] = self._round(copy.output[0])
            return
        for slot, name in enumerate(copy.input):
            if name in self._ranges:
                copy.input[slot] = self._round(self._instead.get(name, name))
        if copy.op_type == 'Conv':
            self._round_weights(copy, node.input[0])
        self._nodes.append(copy)
        for name in copy.output:
            if name in self._ranges:
                self._instead[name] = self._round(name)

    def finish(self) -> onnx.ModelProto:
        graph = self._model.graph
        kept = {value.name for value in graph.output}
        for name in kept & set(self._instead):
            self._nodes.append(helper.make_node('Identity', [self._instead[name]], [name]))
        graph.initializer.extend(self._made)
        del graph.value_info[:]
        _replace_nodes(graph, self._nodes)
        return self._model

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self._made.append(numpy_helper.from_array(value, name))
        return name

    def _scale(self, name: str) -> tuple[np.float32, np.uint8]:
        low, high = self._ranges[name]
        scale = np.float32(max(high - low, 1e-6) / 255)
        return scale, np.uint8(np.clip(np.round(-low / scale), 0, 255))

    def _round(self, name: str) -> str:
        """The value, rounded to 8 bits."""
        if name in self._rounded.values():
            return name
        if name not in self._rounded:
            scale, zero = self._scale(name)
            parameters = [
                self._constant(f'{name}_scale', np.array(scale)),
                self._constant(f'{name}_zero', np.array(zero)),
            ]
            steps = (
                ('QuantizeLinear', name, f'{name}_u8'),
                ('DequantizeLinear', f'{name}_u8', f'{name}_rounded'),
            )
            for operator, value, result in steps:
                self._nodes.append(
                    helper.make_node(operator, [value, *parameters], [result], result)
                )
            self._rounded[name] = f'{name}_rounded'
        return self._rounded[name]

    def _round_weights(self, conv: onnx.NodeProto, source: str) -> None:
        """Weights [O,I,h,w] to 8 bits a channel, the bias to the 32 bits of their products."""
        weight = self._constants[conv.input[1]].astype(np.float64)
        scale = np.abs(weight).reshape(len(weight), -1).max(1) / 127
        step = float(self._scale(source)[0])
        bias = np.zeros(len(weight))
        if len(conv.input) == 3:
            bias = self._constants[conv.input[2]].astype(np.float64)
        # A channel with hardly any weight is its bias, which must fit into its steps.
        scale = np.maximum(scale, np.abs(bias) / (step * 2**30))
        scale = np.maximum(scale, 1e-12).astype(np.float32)
        values = np.round(weight / scale[:, None, None, None]).astype(np.int8)
        conv.input[1] = self._dequantised(conv.output[0] + '_weight', values, scale)
        # What rounding the weights adds on average is taken off again.
        lost = (weight - values * scale[:, None, None, None].astype(np.float64)).sum((2, 3))
        groups = len(self._means[source]) // lost.shape[1]
        means = self._means[source].reshape(groups, 1, -1)
        bias = bias + (lost.reshape(groups, -1, lost.shape[1]) * means).sum(-1).ravel()
        steps = scale * np.float32(step)
        whole = np.round(bias / steps).astype(np.int32)
        conv.input[2:] = [self._dequantised(conv.output[0] + '_bias', whole, steps)]

    def _dequantised(
        self, name: str, values: npt.NDArray[Any], scale: npt.NDArray[np.float32]
    ) -> str:
        inputs = [
            self._constant(f'{name}_whole', values),
            self._constant(f'{name}_scale', scale),
            self._constant(f'{name}_zero', np.zeros(len(scale), values.dtype)),
        ]
        self._nodes.append(helper.make_node('DequantizeLinear', inputs, [name], name, axis=0))
        return name


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
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
