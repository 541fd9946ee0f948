"""Deformable sampling as one node that TensorRT's plugin library runs.

`MultiscaleDeformableAttnPlugin_TRT` ships with TensorRT (fp32 and fp16, int32 shapes). The node is
symbolic: torch and ONNX Runtime cannot compute it, so a graph with it is compared on the robot.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handos_model.network.detectors.protocol import SpatialShapes

PLUGIN = 'MultiscaleDeformableAttnPlugin_TRT'
PLUGIN_DOMAIN = 'trt.plugins'


def sample_by_plugin(
    values: Tensor, spatial_shapes: SpatialShapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """See `attention.Sampler`; for tracing only, the values that it returns mean nothing."""
    B, T = locations.shape[:2]
    areas = [height * width for height, width in spatial_shapes]
    starts = [sum(areas[:level]) for level in range(len(areas))]
    sampled: Tensor = torch.onnx.ops.symbolic(
        f'{PLUGIN_DOMAIN}::{PLUGIN}',
        (
            values.float(),
            torch.tensor(spatial_shapes, dtype=torch.int32, device=values.device),
            torch.tensor(starts, dtype=torch.int32, device=values.device),
            locations.float(),
            weights.float(),
        ),
        {'plugin_version': '1', 'plugin_namespace': ''},
        dtype=torch.float32,
        shape=(B, T, *values.shape[2:]),
        version=1,
    )
    return sampled.flatten(2)
