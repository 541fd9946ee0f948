"""Batch norm over the images of all processes, on any device.

torch's own SyncBatchNorm runs on GPUs only. With this one, W processes with batches of B compute
what one process with a batch of W B computes.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class ProcessWideBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are summed over processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [B,C,h,w]; in eval mode with the running statistics."""
        if not self.training:
            return super().forward(x)
        C = x.shape[1]
        values = x.float()
        own = values.new_tensor([float(values.numel() // C)])
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), own])
        # The gradient of a sum over processes is a sum over processes, too.
        sums = cast(Tensor, all_reduce(sums))  # type: ignore[no-untyped-call]
        count = sums[-1]
        mean = sums[:C] / count
        variance = (sums[C:-1] / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            self._average(mean, variance * count / (count - 1).clamp(min=1))
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    def _average(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Make every BatchNorm2d inside `module` count all processes, where there are several."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = ProcessWideBatchNorm2d  # same state, same names, other forward
