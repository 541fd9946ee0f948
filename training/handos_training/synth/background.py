"""What stands behind the scene: panoramas, invented rooms, plain walls, the user's photographs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from handos_training.synth.lighting import panorama_grid
from handos_training.synth.sampling import Sampler


def camera_rays(cameras_px: Tensor, height: int, width: int, step: int) -> Tensor:
    """Unit directions [B,h,w,3] in the camera frame of every `step`-th pixel block's centre."""
    inverse = torch.linalg.inv(cameras_px)
    x = torch.arange(math.ceil(width / step), device=inverse.device) * step + (step - 1) / 2
    y = torch.arange(math.ceil(height / step), device=inverse.device) * step + (step - 1) / 2
    y, x = torch.meshgrid(y, x, indexing='ij')
    pixel = torch.stack([x, y, torch.ones_like(x)], -1)
    return F.normalize(torch.einsum('bij,hwj->bhwi', inverse, pixel), dim=-1)


def panorama_background(panoramas: Tensor, index: Tensor, world_rays: Tensor) -> Tensor:
    """Radiance [B,3,h,w] of panoramas `index` [B] along world directions [B,h,w,3]."""
    return F.grid_sample(
        panoramas[index], panorama_grid(world_rays), padding_mode='border', align_corners=False
    )


def plain_background(sampler: Sampler, B: int, height: int, width: int) -> Tensor:
    """[B,3,h,w] walls, skies and cloths: a light gradient and 1/f noise between two colours."""
    base = sampler.log_uniform(0.05, 0.9, B, 1) * sampler.normal(0.25, B, 3).exp()
    other = base * sampler.log_uniform(0.4, 2, B, 1) * sampler.normal(0.1, B, 3).exp()
    mix = cloud(sampler, B, height, width)
    image = torch.lerp(base[..., None, None], other[..., None, None], mix)
    shade = cloud(sampler, B, height, width, octaves=2)
    return image * (0.7 + 0.6 * shade)


def cloud(sampler: Sampler, B: int, height: int, width: int, octaves: int = 5) -> Tensor:
    """1/f noise [B,1,h,w] in [0,1]."""
    steep = sampler.uniform(0.4, 0.85, B)[:, None, None, None]
    total = torch.zeros(B, 1, height, width, device=sampler.device)
    for octave in range(octaves):
        n = 3 * 2**octave
        grid = sampler.normal(1, B, 1, min(n, height), min(n, width))
        grid = F.interpolate(grid, size=(height, width), mode='bicubic')
        total.add_(grid * steep**octave)
    return torch.sigmoid(1.2 * total)
