"""The look of JPEG: what quantised 8 x 8 DCT blocks and coarse chroma leave of an image.

ITU-T T.81 (JPEG) annexes A and K, JFIF colour, the quality scale of the Independent JPEG Group.
Only the entropy coder is missing, which loses nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# T.81 tables K.1 and K.2.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)  # fmt: skip
_YCC_FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_RGB_FROM_YCC = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def compress(image: Tensor, quality: Tensor) -> Tensor:
    """`image` [B,3,H,W] in [0,255] after JPEG 4:2:0 at `quality` [B] in [1,100]; same range."""
    B, _, H, W = image.shape
    rgb = F.pad(image, (0, -W % 16, 0, -H % 16), mode='replicate')
    h, w = rgb.shape[2:]
    ycc = torch.matmul(_table(_YCC_FROM_RGB, image), rgb.flatten(2)).view(B, 3, h, w)
    chroma = F.avg_pool2d(ycc[:, 1:], 2)
    luma = _quantize(ycc[:, :1] - 128, _steps(_LUMINANCE, quality)) + 128
    chroma = _quantize(chroma, _steps(_CHROMINANCE, quality))
    chroma = F.interpolate(chroma, scale_factor=2, mode='bilinear')
    ycc = torch.cat([luma, chroma], 1).flatten(2)
    rgb = torch.matmul(_table(_RGB_FROM_YCC, image), ycc).view(B, 3, h, w)
    return rgb[:, :, :H, :W].clamp(0, 255)


def _quantize(plane: Tensor, steps: Tensor) -> Tensor:
    """`plane` [B,C,H,W] with each 8 x 8 block's DCT rounded to multiples of `steps` [B,64]."""
    B, C, H, W = plane.shape
    transform = _dct(plane)
    blocks = plane.reshape(B, C, H // 8, 8, W // 8, 8).transpose(3, 4).reshape(B, -1, 64)
    steps = steps[:, None]
    coefficients = (blocks @ transform.T).div_(steps).round_().mul_(steps)
    blocks = (coefficients @ transform).view(B, C, H // 8, W // 8, 8, 8)
    return blocks.transpose(3, 4).reshape(B, C, H, W)


def _dct(like: Tensor) -> Tensor:
    """The 2D DCT-II of an 8 x 8 block as one orthonormal matrix [64,64]."""
    k = torch.arange(8, dtype=like.dtype, device=like.device)
    matrix = torch.cos((2 * k + 1) * k[:, None] * (math.pi / 16)) / 2
    matrix[0] /= math.sqrt(2)
    return torch.kron(matrix, matrix)


def _steps(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    quality = quality.clamp(1, 100)[:, None]
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    return (_table(table, quality).view(1, 64) * scale).round().clamp(1, 255)


def _table(values: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)
