"""Memory layout and precision that keep a CPU's training kernels on their fast paths.

Measured on one core (16 images of 256x256): batch norm's backward pass takes 30 times as long when
its gradient is not in channels-last layout, and that of a strided depthwise convolution 15 times
as long in bfloat16 as in float32; fused attention over a hand's few tokens is slower than plain
products. Nothing here changes what is computed beyond rounding.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def use_fast_layout(module: nn.Module) -> None:
    """Convert a module's convolutions in place, for training on its device."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_forward_hook(_gradient_in_channels_last)
        elif isinstance(part, nn.Conv2d) and part.groups > 1 and _is_slow_in_bfloat16(part):
            part.forward = _in_float32_on_cpu(part.forward)  # type: ignore[method-assign]


def fast_attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention kernels for training on `device`.

    Not cuDNN's on a GPU: it plans anew for every number of hands, half of a step's time.
    """
    on_gpu = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(SDPBackend.MATH if device.type == 'cpu' else on_gpu)  # type: ignore[no-any-return]


def _is_slow_in_bfloat16(depthwise: nn.Conv2d) -> bool:
    return depthwise.stride != (1, 1) or depthwise.kernel_size[0] > 3


def _gradient_in_channels_last(_: nn.Module, __: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(_channels_last)  # type: ignore[no-untyped-call]


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _in_float32_on_cpu(forward: Any) -> Any:
    def wrapped(x: Tensor) -> Tensor:
        if x.device.type != 'cpu':
            return forward(x)  # type: ignore[no-any-return]
        with torch.autocast('cpu', enabled=False):
            return forward(x.float())  # type: ignore[no-any-return]

    return wrapped
