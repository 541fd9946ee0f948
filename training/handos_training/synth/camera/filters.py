"""Blurs with a strength of their own for each image of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def smooth_(x: Tensor, amount: Tensor) -> Tensor:
    """Blur [B,C,H,W] in place by the kernel (a, 1 - 2a, a) both ways, `amount` a [B] <= 1/3.

    As a step of diffusion, which needs no border: what leaves a pixel enters its neighbour.
    """
    a = amount[:, None, None, None]
    for dim in (3, 2):
        size = x.shape[dim] - 1
        left, right = x.narrow(dim, 0, size), x.narrow(dim, 1, size)
        flow = (right - left).mul_(a)
        left += flow
        right -= flow
    return x


def gaussian_blur(x: Tensor, sigma_px: Tensor) -> Tensor:
    """Separable Gaussian of [B,C,H,W], `sigma_px` [B]."""
    radius = max(1, math.ceil(2.5 * float(sigma_px.amax())))
    offset = torch.arange(-radius, radius + 1, device=x.device)
    kernel = (-0.5 * (offset / sigma_px[:, None].clamp(min=1e-3)).square()).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).T[..., None, None, None]
    for dim, padding in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        size = x.shape[dim]
        padded = F.pad(x, padding, mode='replicate')
        # A sum of shifted images is several times as fast as a grouped convolution here.
        x = padded.narrow(dim, 0, size) * kernel[0]
        for i in range(1, len(kernel)):
            x.addcmul_(padded.narrow(dim, i, size), kernel[i])
    return x


def motion_blur(x: Tensor, length_px: Tensor, angle: Tensor) -> Tensor:
    """Blur [B,C,H,W] along a line of `length_px` [B] at `angle` [B] radians."""
    radius = max(1, math.ceil(float(length_px.amax()) / 2))
    offset = torch.arange(-radius, radius + 1, device=x.device)
    y, x_ = torch.meshgrid(offset, offset, indexing='ij')
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = x_ * cosine + y * sine, y * cosine - x_ * sine
    half = (length_px / 2)[:, None, None]
    kernel = (half + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(min=0)
    return _convolve(x, kernel / kernel.sum((1, 2), keepdim=True))


def _convolve(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image of [B,C,H,W] with its own kernel of [B,h,w]; the border repeats."""
    B, C, H, W = x.shape
    h, w = kernels.shape[1:]
    padded = F.pad(x, (w // 2, w // 2, h // 2, h // 2), mode='replicate')
    weight = kernels[:, None, None].expand(B, C, 1, h, w).reshape(B * C, 1, h, w)
    result = F.conv2d(padded.view(1, B * C, *padded.shape[2:]), weight, groups=B * C)
    return result.view(B, C, H, W)
