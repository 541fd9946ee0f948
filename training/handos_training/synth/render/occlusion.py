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


def ambient_occlusion(
    depth_m: Tensor, focal_px: Tensor, radii_m: tuple[float, float] = RADII_M
) -> Tensor:
    """Share of the sky seen, in [0.3,1], of depth images [B,H,W] (infinite = background).

    At half the resolution, [B,ceil(H/2),ceil(W/2)]. `focal_px` [B] and the mean depth turn the
    radii into pixels.
    """
    depth = F.pad(depth_m, (0, depth_m.shape[2] % 2, 0, depth_m.shape[1] % 2), value=torch.inf)
    # The nearest of four pixels: a mean would smear silhouettes into their background.
    depth = torch.minimum(depth[:, ::2], depth[:, 1::2])
    depth = torch.minimum(depth[..., ::2], depth[..., 1::2])
    covered = depth.isfinite()
    mask = covered.float()
    depth = torch.where(covered, depth, 0)
    level = torch.stack([depth, mask], 1)
    distance = depth.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
    pyramid = [level]
    for _ in range(LEVELS - 1):
        level = F.avg_pool2d(level, 2, ceil_mode=True)
        pyramid.append(level)

    total = torch.zeros_like(mask)
    for radius_m, strength in zip(radii_m, STRENGTHS, strict=True):
        radius_px = radius_m * focal_px / distance.clamp(min=0.05)
        exact = (radius_px.clamp(1, 2**LEVELS).log2() - 0.5).clamp(0, LEVELS - 1)
        # Coarse to fine, adding each level where an image wants it: one enlarging chain for all.
        blurred = torch.zeros_like(pyramid[-1])
        for index in range(LEVELS - 1, -1, -1):
            share = (1 - (exact - index).abs()).clamp(min=0)[:, None, None, None]
            if index < LEVELS - 1:
                size = pyramid[index].shape[2:]
                blurred = F.interpolate(blurred, size=size, mode='bilinear', antialias=True)
            blurred = blurred.addcmul_(pyramid[index], share)
        deeper = depth - blurred[:, 0] / blurred[:, 1].clamp(min=1e-3)
        # What lies far deeper is another thing, whose sky is its own.
        ratio = deeper.div_(radius_m).clamp_(0, 4)
        total.addcmul_(ratio * (4 - ratio), mask, value=strength / 4)
    return total.neg_().add_(1).clamp_(min=0.3)
