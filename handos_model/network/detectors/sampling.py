"""Swap the sampling inside the detectors' own deformable attention, for export.

TensorRT has computed GridSample attention wrongly in several releases, in the detector's layers as
much as in ours, so both must be exchangeable. `transformers` keeps it in one function a family;
here that function is replaced for the time of a `with` block by our `Sampler`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from handos_model.network.detectors.protocol import Detector, Sampler, SpatialShapes


@contextmanager
def detector_sampling(detector: Detector, sampler: Sampler) -> Iterator[None]:
    """Within the block the deformable attention of `detector` samples by `sampler`."""

    def by_level(
        value: Tensor,
        value_spatial_shapes: SpatialShapes,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        num_points_list: list[int],
        method: str = 'default',
    ) -> Tensor:
        """D-FINE's and RT-DETRv2's: points of all levels [B,Q,heads,sum of points,2] in a row."""
        if method != 'default':
            raise ValueError(f'deformable attention by {method!r} cannot be swapped')
        most = max(num_points_list)
        locations = _pad_points(sampling_locations, num_points_list, most, axis=3)
        weights = _pad_points(attention_weights, num_points_list, most, axis=3)
        return sampler(value, value_spatial_shapes, locations, weights)

    def grounding_dino(
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_spatial_shapes_list: SpatialShapes,
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        return sampler(value, value_spatial_shapes_list, sampling_locations, attention_weights)

    with ExitStack() as stack:
        for module in detector.model.modules():
            kind = type(module).__name__
            if hasattr(module, 'ms_deformable_attn_core'):
                stack.enter_context(patch.object(module, 'ms_deformable_attn_core', by_level))
            elif kind == 'MultiScaleDeformableAttention':
                stack.enter_context(patch.object(module, 'forward', grounding_dino))
            elif kind == 'RTDetrV2MultiscaleDeformableAttention':
                function = 'transformers.models.rt_detr_v2.modeling_rt_detr_v2.'
                function += 'multi_scale_deformable_attention_v2'
                stack.enter_context(patch(function, by_level))
        yield


def _pad_points(values: Tensor, counts: list[int], most: int, axis: int) -> Tensor:
    """Split `axis` into levels of `most` points; padding has weight zero, so it adds nothing."""
    if all(count == most for count in counts):
        shape = (*values.shape[:axis], len(counts), most, *values.shape[axis + 1 :])
        return values.reshape(shape)
    behind = [0, 0] * (values.ndim - axis - 1)
    levels = torch.split(values, counts, dim=axis)
    padded = [F.pad(level, [*behind, 0, most - level.shape[axis]]) for level in levels]
    return torch.stack(padded, dim=axis)
