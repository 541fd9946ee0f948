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


@torch.no_grad()
def scale_kernels(network: nn.Module) -> None:
    """Move what each batch normalisation multiplies by into the convolution before it, in place.

    The network in evaluation computes the same, and its kernels are the ones that exporters get by
    folding: rounded to half precision, they are the same numbers in torch and in a graph.
    """
    for _, conv, norm in _normalised(network):
        whole, scale = _multiplier(norm), _scale(norm)
        conv.weight.mul_(scale[:, None, None, None])
        if conv.bias is not None:
            conv.bias.mul_(scale)
        norm.running_mean.mul_(scale)
        norm.running_var.mul_(scale.square())
        # What is left is 1, but where there was next to nothing to move.
        norm.weight.copy_(whole / scale * torch.sqrt(norm.running_var + _eps(norm)))


def _folded_scales(network: nn.Module) -> dict[str, Tensor]:
    """What the normalisation after each convolution multiplies it by [O,1,1,1], by its name."""
    return {name: _scale(norm)[:, None, None, None] for name, _, norm in _normalised(network)}


def _normalised(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d, Any]]:
    """Each convolution with a batch normalisation after it: its weight's name, both modules."""
    for path, parent in network.named_modules():
        for (name, first), (_, second) in pairwise(parent.named_children()):
            if isinstance(first, nn.Conv2d) and hasattr(second, 'running_var'):
                yield f'{path}.{name}.weight' if path else f'{name}.weight', first, second


def _eps(norm: Any) -> float:
    return float(getattr(norm, 'eps', 1e-5))


def _multiplier(norm: Any) -> Tensor:
    """What a normalisation multiplies each channel [O] by."""
    multiplier: Tensor = (norm.weight / torch.sqrt(norm.running_var + _eps(norm))).detach()
    return multiplier


def _scale(norm: Any) -> Tensor:
    """The same [O], and 1 where it is next to nothing: a kernel may be divided by it."""
    multiplier = _multiplier(norm)
    return torch.where(multiplier.abs() > 1e-6, multiplier, torch.ones_like(multiplier))


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
