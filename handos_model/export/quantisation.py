"""8-bit convolutions in an ONNX graph, as pairs of QuantizeLinear and DequantizeLinear.

Convolutions but the first, and what stands between two of them and only moves or adds values, get
unsigned 8-bit activations (a scale and zero point a tensor) and signed 8-bit weights (a scale a
channel).
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
from handos_model.export.rounding_plan import CLIPS, plan, prepared, replace_nodes

_SAMPLES_AN_IMAGE = 8192  # values of a tensor that its range is estimated from
_OUTLIERS = 1e-5  # share of values at either end that may saturate: ten times as many cost scores


@dataclass(frozen=True)
class Observed:
    """What values a tensor took."""

    low: float
    high: float
    channel_means: npt.NDArray[np.float64]  # [C] of [1,C,...]


def observe(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, Array]], folder: Path
) -> dict[str, Observed]:
    """Every value that `quantised` rounds, over the inputs `feeds`.

    `folder` is for a temporary file.
    """
    import onnxruntime as ort

    model = prepared(model)
    names = sorted(plan(model).tensors)
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
    model = prepared(model)
    chosen = plan(model)
    own = {name: (observed[name].low, observed[name].high) for name in chosen.tensors}
    shared: dict[str, tuple[float, float]] = {}
    for name, group in chosen.tensors.items():
        low, high = shared.get(group, (0.0, 0.0))
        shared[group] = (min(low, own[name][0]), max(high, own[name][1]))
    of_values = {
        name: own[name] if name in chosen.clipped else shared[group]
        for name, group in chosen.tensors.items()
    }
    means = {name: observed[name].channel_means for name in chosen.tensors}
    writer = _Writer(model, of_values, means)
    for index, node in enumerate(model.graph.node):
        writer.add(node, index in chosen.nodes)
    result = writer.finish()
    onnx.checker.check_model(result)
    return result


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    low, high = np.quantile(values, [_OUTLIERS, 1 - _OUTLIERS])
    return min(float(low), 0.0), max(float(high), 0.0)


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

    def add(self, node: onnx.NodeProto, is_quantised: bool) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if not is_quantised:
            for slot, name in enumerate(copy.input):
                copy.input[slot] = self._instead.get(name, name)
            self._nodes.append(copy)
            return
        if copy.op_type in CLIPS:  # the convolution before it saturates instead
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
        graph.initializer.extend(self._made)
        del graph.value_info[:]
        replace_nodes(graph, self._nodes)
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
        # A channel with hardly any weight is its bias, which must fit into its steps. Of these the
        # power of two below counts: the graphs of a window, with other steps, share the weights.
        scale = np.maximum(scale, np.abs(bias) / (2.0 ** np.floor(np.log2(step)) * 2**30))
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
