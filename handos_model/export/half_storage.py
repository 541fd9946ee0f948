"""Weights of 16 bits in files that compute in 32: half the size, the same arithmetic.

The network's weights are rounded to half precision before it is traced, so that torch and the
graph compute with the same numbers; in the file each such weight is float16 and a Cast widens it,
which runtimes do once, when they load the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

_SMALLEST = 256  # elements: below, a Cast is no smaller than what it saves
_FOLDING_ERROR = 2.0**-21  # relative, of a normalisation folded into a weight in float32


@contextmanager
def rounded_weights(network: nn.Module) -> Iterator[None]:
    """Within it, every weight matrix and kernel of `network` is a half-precision number.

    A convolution before a batch normalisation is rounded with the normalisation's scale in it,
    because exporters fold the two. Biases, scales and buffers stay; all is put back at the end.
    """
    scales = _folded_scales(network)
    kept: list[tuple[nn.Parameter, Tensor]] = []
    try:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if parameter.ndim < 2 or parameter.dtype != torch.float32:
                    continue
                kept.append((parameter, parameter.detach().clone()))
                scale = scales.get(name, torch.ones(()))
                rounded = (parameter * scale).half().float() / scale
                if rounded.isfinite().all():
                    parameter.copy_(rounded)
        yield
    finally:
        with torch.no_grad():
            for parameter, original in kept:
                parameter.copy_(original)


def _folded_scales(network: nn.Module) -> dict[str, Tensor]:
    """What the normalisation after each convolution multiplies it by [O,1,1,1], by its name."""
    scales = {}
    for path, parent in network.named_modules():
        for (name, first), (_, second) in pairwise(parent.named_children()):
            norm: Any = second
            if isinstance(first, nn.Conv2d) and hasattr(norm, 'running_var'):
                deviation = torch.sqrt(norm.running_var + getattr(norm, 'eps', 1e-5))
                scale = (norm.weight / deviation).detach()
                scale = torch.where(scale.abs() > 1e-6, scale, torch.ones_like(scale))
                full_name = f'{path}.{name}.weight' if path else f'{name}.weight'
                scales[full_name] = scale[:, None, None, None]
    return scales


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` that keeps in float16 every constant that loses nothing by it."""
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    graph = smaller.graph
    casts = []
    for item in graph.initializer:
        if item.data_type != TensorProto.FLOAT or np.prod(item.dims) < _SMALLEST:
            continue
        values = numpy_helper.to_array(item)
        with np.errstate(over='ignore'):
            halves = values.astype(np.float16)
        if (np.abs(halves.astype(np.float32) - values) <= _FOLDING_ERROR * np.abs(values)).all():
            name, stored = item.name, f'{item.name}_half'
            item.CopyFrom(numpy_helper.from_array(halves, stored))
            casts.append(
                helper.make_node('Cast', [stored], [name], f'widen_{name}', to=TensorProto.FLOAT)
            )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(smaller)
    return smaller
