"""The renderer: a scene mesh in, pictures out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from handos_training.synth.background import (
    camera_rays,
    panorama_background,
    plain_background,
)
from handos_training.synth.environments import load_panoramas
from handos_training.synth.filters import gaussian_blur
from handos_training.synth.lighting import (
    Environments,
    panorama_lights,
    room_lights,
    sample_world_from_camera,
    select_lights,
)
from handos_training.synth.materials import Looks
from handos_training.synth.mesh import SceneMesh
from handos_training.synth.photometric import PhotometricConfig, photograph
from handos_training.synth.raster import Fragments, rasterize
from handos_training.synth.sampling import Sampler
from handos_training.synth.shade import shade


@dataclass(frozen=True)
class RenderConfig:
    """How pictures are made; weights need not sum to one."""

    panorama_weight: float = 0.35
    room_weight: float = 0.45
    plain_weight: float = 0.2
    photo_weight: float = 2.0  # where a folder of photographs is given
    backgrounds: Path | None = None
    supersample: int = 1  # pixels along each side of an output pixel; 2 costs four times as much
    shadow_resolution: int = 192
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)

    def __post_init__(self) -> None:
        if self.supersample not in (1, 2, 3, 4):
            raise ValueError(f'supersample must be 1 to 4, got {self.supersample}')
        if not 16 <= self.shadow_resolution <= 2048:
            raise ValueError(f'shadow_resolution must be 16 to 2048, got {self.shadow_resolution}')


@dataclass
class RenderOutput:
    """Pictures and the geometry behind each of their pixels."""

    image: Tensor  # [B,3,H,W] uint8 RGB
    fragments: Fragments


class Renderer:
    """Draws, lights and photographs batches of scenes on one device."""

    def __init__(self, config: RenderConfig, device: torch.device | str = 'cpu') -> None:
        self.config = config
        self.environments = Environments.from_panoramas(load_panoramas()).to(device)

    def __call__(
        self,
        mesh: SceneMesh,
        camera_matrices_px: Tensor,
        height: int,
        width: int,
        generator: torch.Generator,
        up: Tensor | None = None,
    ) -> RenderOutput:
        """Pictures [B,3,height,width]; `up` [B,3] points against gravity in each camera's frame."""
        config, sampler = self.config, Sampler(generator)
        B = len(camera_matrices_px)
        fragments = rasterize(mesh, camera_matrices_px, height, width)
        fine, cameras = fragments, camera_matrices_px
        if config.supersample > 1:
            cameras = supersampled(camera_matrices_px, config.supersample)
            fine = rasterize(
                mesh, cameras, height * config.supersample, width * config.supersample
            )
        world_from_camera = sample_world_from_camera(sampler, B, up)
        kind = sampler.choice((config.panorama_weight, config.room_weight, config.plain_weight), B)
        panorama = sampler.integers(len(self.environments.panoramas), B)
        lights = select_lights(
            kind == 0,
            panorama_lights(self.environments, panorama, sampler, world_from_camera),
            room_lights(sampler, world_from_camera),
        )
        looks = Looks.sample(sampler, B)
        shaded = shade(mesh, fine, cameras, lights, looks, config.shadow_resolution)
        rgb, alpha = shaded.rgb, shaded.alpha
        if config.supersample > 1:
            rgb = F.avg_pool2d(rgb, config.supersample)
            alpha = F.avg_pool2d(alpha, config.supersample)

        step = max(1, round(max(height, width) / 150))
        rays = camera_rays(camera_matrices_px, height, width, step)
        world_rays = torch.einsum('bij,bhwj->bhwi', world_from_camera, rays)
        small = plain_background(sampler, B, *rays.shape[1:3])
        chosen = (kind == 0).nonzero().squeeze(1)
        if len(chosen):
            small[chosen] = panorama_background(
                self.environments.panoramas, panorama[chosen], world_rays[chosen]
            )
        small = gaussian_blur(small, sampler.log_uniform(0.3, 2.5, B))
        backdrop = F.interpolate(small, size=(height, width), mode='bilinear')
        linear = backdrop.mul_(1 - alpha[:, None]).add_(rgb)
        image = photograph(linear, alpha, config.photometric, sampler)
        return RenderOutput(image, fragments)


def supersampled(camera_matrices_px: Tensor, factor: int) -> Tensor:
    """Cameras [B,3,3] for images `factor` times as large; pixel (0, 0) is a centre in both."""
    scale = torch.diag(camera_matrices_px.new_tensor([factor, factor, 1]))
    scale[:2, 2] = (factor - 1) / 2
    return scale @ camera_matrices_px
