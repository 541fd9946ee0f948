"""Shadows of the key light: a depth image as the light sees it, compared with soft edges."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from handos_training.synth.render.lighting import Lights
from handos_training.synth.render.mesh import SceneMesh
from handos_training.synth.render.pixels import take, transform
from handos_training.synth.render.raster import rasterize_depth, vertex_images

LIGHT_DISTANCE_M = 20.0  # far enough that its rays are parallel over a scene
BIAS_M = 0.004
OCCLUDER_HEIGHT_M = 0.06  # what casts a shadow is about this far above what receives it
MAX_BLUR = 0.03  # of the map's side
MARGIN = 1.1  # the blur reaches past what receives shadows
TAPS = 6


@dataclass
class ShadowMap:
    """Depth from the light over all that the camera sees."""

    light_from_camera: Tensor  # [B,3,3]
    offset_m: Tensor  # [B,3] added in the light's frame
    focal_px: Tensor  # [B]
    blur_px: Tensor  # [B]
    bias_m: Tensor  # [B]
    depth_m: Tensor  # [B,S,S]

    @classmethod
    def draw(
        cls,
        mesh: SceneMesh,
        lights: Lights,
        seen_depth_m: Tensor,
        cameras_px: Tensor,
        resolution: int,
    ) -> ShadowMap:
        """Fit the map to what the camera sees by its depth image [B,H,W], and draw the mesh."""
        frames = _frames(lights.key_direction)
        low, high = _bounds(seen_depth_m, frames @ torch.linalg.inv(cameras_px))
        extent = ((high - low).amax(1) * MARGIN).clamp(min=0.02)
        distance = torch.full_like(extent, LIGHT_DISTANCE_M)
        offset = torch.cat([-(low + high) / 2, distance[:, None]], 1)
        focal = resolution / extent * LIGHT_DISTANCE_M
        blur = lights.key_radius * (OCCLUDER_HEIGHT_M * resolution) / extent
        blur = blur.clamp(0.7, resolution * MAX_BLUR)
        camera = torch.diag_embed(torch.stack([focal, focal, torch.ones_like(focal)], 1))
        camera[:, :2, 2] = (resolution - 1) / 2
        image = vertex_images(mesh)
        vertices = transform(frames, mesh.vertices_m.T, image).add_(take(offset, image))
        mesh = replace(mesh, vertices_m=vertices.T.contiguous())
        depth = rasterize_depth(mesh, camera, resolution, resolution)
        bias = BIAS_M + 1.2 * blur * extent / resolution
        return cls(frames, offset, focal, blur, bias, depth)

    def lit(self, points_m: Tensor, image: Tensor) -> Tensor:
        """Share [P] of the key light that reaches surface points [3,P] of images [P]."""
        S = self.depth_m.shape[1]
        depth = self.depth_m.view(-1)
        x, y, z = transform(self.light_from_camera, points_m, image).add_(
            take(self.offset_m, image)
        )
        scale = take(self.focal_px, image).div_(z)
        x, y = x.mul_(scale).add_((S - 1) / 2), y.mul_(scale).add_((S - 1) / 2)
        z -= take(self.bias_m, image)
        blur, start = take(self.blur_px, image), image * (S * S)
        total = torch.zeros_like(z)
        for tap in range(TAPS):
            # A sunflower's disc: equal areas, no two taps in a line.
            radius, angle = math.sqrt((tap + 0.5) / TAPS), tap * 2.399963
            column = torch.add(x, blur, alpha=radius * math.cos(angle)).round_().clamp_(0, S - 1)
            row = torch.add(y, blur, alpha=radius * math.sin(angle)).round_().clamp_(0, S - 1)
            index = row.mul_(S).add_(column).long().add_(start)
            total += depth.index_select(0, index) > z
        return total.div_(TAPS)


def _frames(direction: Tensor) -> Tensor:
    """Rows of a frame [B,3,3] that looks along the light's rays, against `direction`."""
    forward = -direction
    axes = torch.eye(3, device=direction.device)
    helper = torch.where(forward[:, 1:2].abs() < 0.9, axes[1], axes[0])
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, forward), dim=1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], 1)


def _bounds(depth_m: Tensor, light_from_pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest x, y [B,2] in the light's frame of what a depth image shows."""
    step = 3  # nothing that matters is smaller
    coarse = depth_m[:, ::step, ::step]
    covered = coarse.isfinite()
    _, h, w = coarse.shape
    y = torch.arange(h, device=depth_m.device) * step
    x = torch.arange(w, device=depth_m.device) * step
    y, x = torch.meshgrid(y, x, indexing='ij')
    pixel = torch.stack([x, y, torch.ones_like(x)]).float().view(3, -1)
    seen = (light_from_pixel[:, :2] @ pixel) * torch.where(covered, coarse, 0).flatten(1)[:, None]
    covered = covered.flatten(1)[:, None]
    low = torch.where(covered, seen, torch.inf).amin(2)
    high = torch.where(covered, seen, -torch.inf).amax(2)
    return torch.where(low > high, 0, low), torch.where(low > high, 0, high)
