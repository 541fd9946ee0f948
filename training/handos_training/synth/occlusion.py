"""Cheap ambient occlusion: surfaces that lie deeper than their surroundings get less sky.

After Luft et al., "Image Enhancement by Unsharp Masking the Depth Buffer", 2006, at two radii that
are the same in metres at every distance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

RADII_M = (0.006, 0.025)
STRENGTHS = (0.35, 0.5)
LEVELS = 6


def ambient_occlusion(depth_m: Tensor, focal_px: Tensor) -> Tensor:
    """Share of the sky seen, [B,H,W] in [0.3,1], of depth images (infinite = background)."""
    covered = depth_m.isfinite()
    mask = covered.float()
    count = mask.sum((1, 2)).clamp(min=1)
    level = [torch.where(covered, depth_m, 0)[:, None], mask[:, None]]
    distance = level[0].sum((1, 2, 3)) / count
    pyramid = []
    for _ in range(LEVELS):
        level = [F.avg_pool2d(x, 2, ceil_mode=True) for x in level]
        pyramid.append(level)

    carried = torch.zeros_like(mask)[:, None]
    total = torch.zeros_like(mask)
    for radius_m, strength in zip(RADII_M, STRENGTHS, strict=True):
        radius_px = (radius_m * focal_px / distance.clamp(min=0.05)).clamp(1, 2**LEVELS)
        exact = (radius_px.log2() - 0.5).clamp(0, LEVELS - 1)[:, None, None, None]

        # Coarse to fine, adding each level where an image wants it: one upsampling chain for all.
        for index in range(LEVELS - 1, -1, -1):
            share = (1 - (exact - index).abs()).clamp(min=0)
            depth, cover = pyramid[index]
            contribution = torch.cat([depth * share, cover * share], 1)
            if index < LEVELS - 1:
                contribution += F.interpolate(carried, size=depth.shape[2:], mode='bilinear')
            carried = contribution
        carried = F.interpolate(carried, size=depth_m.shape[1:], mode='bilinear')
        mean = carried[:, 0] / carried[:, 1].clamp(min=1e-3)
        deeper = torch.where(covered, depth_m, 0) - mean
        total += strength * (deeper / radius_m).clamp_(0, 1) * mask
    return (1 - total).clamp_(0.3, 1)
