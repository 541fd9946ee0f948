"""Deformable sampling as one node that TensorRT's plugin library runs.

`MultiscaleDeformableAttnPlugin_TRT` ships with TensorRT. In torch the operator computes the same
by GridSample, so that a graph with it can be traced; ONNX Runtime cannot run the exported node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from handos_model.attention import sample_by_grid
from handos_model.detectors.protocol import SpatialShapes

PLUGIN = 'MultiscaleDeformableAttnPlugin_TRT'
PLUGIN_DOMAIN = 'trt.plugins'


@torch.library.custom_op('handos::deformable_sampling', mutates_args=())
def _deformable_sampling(
    values: Tensor, spatial_shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    shapes = tuple((int(height), int(width)) for height, width in spatial_shapes.tolist())
    sampled = sample_by_grid(values, shapes, locations, weights)
    B, T = locations.shape[:2]
    return sampled.reshape(B, T, *values.shape[2:]).contiguous()


@_deformable_sampling.register_fake
def _(
    values: Tensor, spatial_shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    B, T = locations.shape[:2]
    return values.new_empty(B, T, *values.shape[2:])


def sample_by_plugin(
    values: Tensor, spatial_shapes: SpatialShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """See `attention.Sampler`; spatial shapes and level starts are int32 constants."""
    areas = [height * width for height, width in spatial_shapes]
    starts = [sum(areas[:level]) for level in range(len(areas))]
    sampled: Tensor = _deformable_sampling(
        values.float(),
        torch.tensor(spatial_shapes, dtype=torch.int32, device=values.device),
        torch.tensor(starts, dtype=torch.int32, device=values.device),
        locations.float(),
        weights.float(),
    )
    return sampled.flatten(2)


def plugin_translation() -> dict[Any, Callable[..., Any]]:
    """How the dynamo exporter writes the operator."""
    import onnxscript

    domain = onnxscript.values.Opset(PLUGIN_DOMAIN, 1)
    node = onnxscript.values.Op(domain, PLUGIN)

    def translate(
        values: Any, spatial_shapes: Any, starts: Any, locations: Any, weights: Any
    ) -> Any:
        return node(
            values, spatial_shapes, starts, locations, weights,
            plugin_version='1', plugin_namespace='',
        )  # fmt: skip

    return {torch.ops.handos.deformable_sampling.default: translate}
