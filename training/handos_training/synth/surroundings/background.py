"""What stands behind the scene: panoramas, invented rooms, plain walls, the user's photographs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from handos_training.synth.camera.filters import gaussian_blur
from handos_training.synth.render.lighting import Lights, panorama_grid
from handos_training.synth.render.materials import fabric_colors
from handos_training.synth.sampling import Sampler
from handos_training.synth.surroundings.photos import PhotoFolder
from handos_training.synth.surroundings.rooms import room_background

PANORAMA, ROOM, PLAIN, PHOTO = range(4)
# Backgrounds are out of focus, so they are drawn about this long and enlarged.
DRAWN_LONGER_SIDE_PX = 150


@dataclass(frozen=True)
class BackgroundWeights:
    """How often each kind is drawn, relative to one another."""

    panorama: float = 0.4
    room: float = 0.5
    plain: float = 0.1
    photo: float = 2.0  # counts only where there is a folder of photographs

    def __post_init__(self) -> None:
        weights = (self.panorama, self.room, self.plain, self.photo)
        if min(weights) < 0 or sum(weights[:3]) <= 0:
            raise ValueError(f'background weights must be >= 0 and not all zero, got {weights}')


@dataclass
class BackgroundChoice:
    """Drawn before the lights are, because a panorama lights its scene."""

    kind: Tensor  # [B] PANORAMA, ROOM, PLAIN or PHOTO
    panorama: Tensor  # [B] which panorama, should it be one

    @property
    def is_panorama(self) -> Tensor:
        return self.kind == PANORAMA


class Backgrounds:
    """Draws linear-light backgrounds for a batch of cameras."""

    def __init__(
        self, weights: BackgroundWeights, panoramas: Tensor, photos: PhotoFolder | None
    ) -> None:
        self.weights = weights
        self.panoramas = panoramas  # [E,3,h,w]
        self.photos = photos

    def choose(self, sampler: Sampler, B: int) -> BackgroundChoice:
        weights = self.weights
        photo = weights.photo if self.photos is not None else 0.0
        kind = sampler.choice((weights.panorama, weights.room, weights.plain, photo), B)
        return BackgroundChoice(kind, sampler.integers(len(self.panoramas), B))

    def draw(
        self,
        choice: BackgroundChoice,
        sampler: Sampler,
        world_from_camera: Tensor,
        cameras_px: Tensor,
        height: int,
        width: int,
        lights: Lights,
    ) -> Tensor:
        """[B,3,height,width]."""
        B = len(cameras_px)
        step = max(1, round(max(height, width) / DRAWN_LONGER_SIDE_PX))
        cameras = _shrunk(cameras_px, step)
        h, w = math.ceil(height / step), math.ceil(width / step)
        small = torch.zeros(B, 3, h, w, device=cameras_px.device)

        chosen = (choice.kind == PANORAMA).nonzero().squeeze(1)
        if len(chosen):
            rays = _rays(cameras[chosen], world_from_camera[chosen], h, w)
            small[chosen] = _panorama(self.panoramas, choice.panorama[chosen], rays)
        chosen = (choice.kind == ROOM).nonzero().squeeze(1)
        if len(chosen):
            small[chosen] = room_background(
                sampler, world_from_camera[chosen], cameras[chosen], h, w, lights[chosen]
            )
        chosen = (choice.kind == PLAIN).nonzero().squeeze(1)
        if len(chosen):
            small[chosen] = _plain(sampler, len(chosen), h, w)
        small = gaussian_blur(small, sampler.log_uniform(0.3, 1.7, B))
        # Antialiased resizing is separable, hence twice as fast; for enlarging it is the same.
        backdrop = F.interpolate(
            small, size=(h * step, w * step), mode='bilinear', antialias=True
        )[:, :, :height, :width]
        chosen = (choice.kind == PHOTO).nonzero().squeeze(1)
        if len(chosen) and self.photos is not None:
            backdrop[chosen] = self.photos.crops(sampler, len(chosen), height, width)
        return backdrop


def _shrunk(cameras_px: Tensor, step: int) -> Tensor:
    """Cameras [B,3,3] for images whose pixels cover `step` x `step` of the old ones."""
    scale = torch.diag(cameras_px.new_tensor([1 / step, 1 / step, 1]))
    scale[:2, 2] = (1 / step - 1) / 2
    return scale @ cameras_px


def _rays(cameras_px: Tensor, world_from_camera: Tensor, height: int, width: int) -> Tensor:
    """Unit world directions [B,h,w,3] of the pixels' centres."""
    device = cameras_px.device
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing='ij'
    )
    pixel = torch.stack([x, y, torch.ones_like(x)], -1).float().view(-1, 3)
    rays = pixel @ (world_from_camera @ torch.linalg.inv(cameras_px)).transpose(1, 2)
    return F.normalize(rays, dim=-1).view(-1, height, width, 3)


def _panorama(panoramas: Tensor, index: Tensor, world_rays: Tensor) -> Tensor:
    """Radiance [B,3,h,w] of panoramas `index` [B] along world directions [B,h,w,3]."""
    return F.grid_sample(
        panoramas[index], panorama_grid(world_rays), padding_mode='border', align_corners=False
    )


def _plain(sampler: Sampler, B: int, height: int, width: int) -> Tensor:
    """[B,3,h,w] walls and cloths: a light gradient and faint 1/f noise on one colour."""
    color = torch.where(
        sampler.coin(0.7, B, 1), sampler.uniform(0.1, 0.85, B, 1), fabric_colors(sampler, B)
    )
    color = color * sampler.normal(0.06, B, 3).exp()
    texture = _cloud(sampler, B, height, width, 5) * sampler.log_uniform(0.01, 0.1, B, 1, 1, 1)
    light = _cloud(sampler, B, height, width, 1) * sampler.uniform(0.1, 0.4, B, 1, 1, 1)
    return color[..., None, None] * (texture + light).exp()


def _cloud(sampler: Sampler, B: int, height: int, width: int, octaves: int) -> Tensor:
    """1/f noise [B,1,h,w], zero mean and about unit deviation."""
    total = torch.zeros(B, 1, height, width, device=sampler.device)
    for octave in range(octaves):
        n = 3 * 2**octave
        grid = sampler.normal(1, B, 1, min(n, height), min(n, width))
        grid = F.interpolate(grid, size=(height, width), mode='bicubic')
        total.add_(grid, alpha=0.6**octave)
    return total
