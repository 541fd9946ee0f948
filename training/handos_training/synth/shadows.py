"""Shadows of the key light: a depth image as the light sees it, compared with soft edges."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from handos_training.synth.lighting import Lights
from handos_training.synth.mesh import SceneMesh
from handos_training.synth.raster import rasterize_depth, vertex_images

LIGHT_DISTANCE_M = 20.0  # far enough that its rays are parallel over a scene
BIAS_M = 0.004
TAPS = 8


def light_reaching(
    mesh: SceneMesh, lights: Lights, points_m: Tensor, image: Tensor, resolution: int
) -> Tensor:
    """Share [P] in [0,1] of the key light that reaches surface points [P,3] of images [P]."""
    B = len(lights.key_direction)
    light_from_camera = _frames(lights.key_direction)
    seen = _rotate(points_m, light_from_camera, image)
    low = seen.new_full((B, 2), torch.inf)
    high = seen.new_full((B, 2), -torch.inf)
    owner = image[:, None].expand(-1, 2)
    low.scatter_reduce_(0, owner, seen[:, :2], 'amin')
    high.scatter_reduce_(0, owner, seen[:, :2], 'amax')
    low, high = torch.where(low > high, 0, low), torch.where(low > high, 0, high)
    extent = ((high - low).amax(1) * 1.04).clamp(min=0.02)
    center = (low + high) / 2

    vertices = _rotate(mesh.vertices_m, light_from_camera, vertex_images(mesh))
    offset = torch.cat([-center, torch.full_like(center[:, :1], LIGHT_DISTANCE_M)], 1)
    vertices += offset.index_select(0, vertex_images(mesh))
    focal = resolution / extent * LIGHT_DISTANCE_M
    camera = torch.zeros(B, 3, 3, device=focal.device)
    camera[:, 0, 0] = camera[:, 1, 1] = focal
    camera[:, :2, 2] = (resolution - 1) / 2
    camera[:, 2, 2] = 1
    depth = rasterize_depth(
        replace(mesh, vertices_m=vertices), camera, resolution, resolution
    ).view(-1)

    seen += offset.index_select(0, image)
    scale = (focal.index_select(0, image) / seen[:, 2])[:, None]
    pixel = seen[:, :2] * scale + (resolution - 1) / 2
    # An object some centimetres above the surface blurs its shadow over this many pixels.
    blur_px = (lights.key_radius * 0.06 * resolution / extent).clamp(0.7, resolution / 20)
    blur = blur_px.index_select(0, image)[:, None]
    bias = (BIAS_M + 1.2 * blur_px * extent / resolution).index_select(0, image)
    threshold, row = seen[:, 2] - bias, image * resolution
    lit = torch.zeros_like(threshold)
    for tap in range(TAPS):
        # A sunflower's disc: equal areas, no two taps in a line.
        radius, angle = math.sqrt((tap + 0.5) / TAPS), tap * 2.399963
        shift = pixel.new_tensor([radius * math.cos(angle), radius * math.sin(angle)])
        x, y = (pixel + blur * shift).round_().clamp_(0, resolution - 1).long().unbind(1)
        lit += depth.index_select(0, (row + y).mul_(resolution).add_(x)) > threshold
    return lit / TAPS


def _frames(direction: Tensor) -> Tensor:
    """Rows of a frame [B,3,3] that looks along the light's rays, against `direction`."""
    forward = -direction
    axes = torch.eye(3, device=direction.device)
    helper = torch.where(forward[:, 1:2].abs() < 0.9, axes[1], axes[0])
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, forward), dim=1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], 1)


def _rotate(points: Tensor, frames: Tensor, image: Tensor) -> Tensor:
    return (frames.index_select(0, image) * points[:, None]).sum(2)
