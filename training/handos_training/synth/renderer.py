"""The renderer: a scene mesh in, pictures out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from handos_training.synth.camera.filters import smooth_
from handos_training.synth.camera.photometric import PhotometricConfig, photograph
from handos_training.synth.render.lighting import (
    Environments,
    panorama_lights,
    room_lights,
    sample_world_from_camera,
    select_lights,
)
from handos_training.synth.render.materials import Looks
from handos_training.synth.render.mesh import SceneMesh
from handos_training.synth.render.raster import Fragments, rasterize
from handos_training.synth.render.shade import shade
from handos_training.synth.sampling import Sampler
from handos_training.synth.surroundings.background import Backgrounds, BackgroundWeights
from handos_training.synth.surroundings.environments import load_panoramas
from handos_training.synth.surroundings.photos import PhotoFolder


@dataclass(frozen=True)
class RenderConfig:
    """How pictures are made."""

    weights: BackgroundWeights = field(default_factory=BackgroundWeights)
    backgrounds: Path | None = None  # a folder of the user's own photographs
    antialias: bool = True  # smooth the silhouettes
    shadow_resolution: int = 160
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)

    def __post_init__(self) -> None:
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
        photos = PhotoFolder(config.backgrounds) if config.backgrounds is not None else None
        self.backgrounds = Backgrounds(config.weights, self.environments.panoramas, photos)

    def __call__(
        self,
        mesh: SceneMesh,
        camera_matrices_px: Tensor,
        height: int,
        width: int,
        generator: torch.Generator,
        up: Tensor | None = None,
    ) -> RenderOutput:
        """Pictures [B,3,height,width]; `up` [B,3] points against gravity, in the camera frame."""
        config, sampler = self.config, Sampler(generator)
        B = len(camera_matrices_px)
        world_from_camera = sample_world_from_camera(sampler, B, up)
        choice = self.backgrounds.choose(sampler, B)
        lights = select_lights(
            choice.is_panorama,
            panorama_lights(self.environments, choice.panorama, sampler, world_from_camera),
            room_lights(sampler, world_from_camera),
        )
        fragments = rasterize(mesh, camera_matrices_px, height, width)
        looks = Looks.sample(sampler, B)
        rgb = shade(mesh, fragments, camera_matrices_px, lights, looks, config.shadow_resolution)
        alpha = (fragments.face >= 0).float()[:, None]
        if config.antialias:
            rgb, alpha = antialias(rgb, alpha)
        backdrop = self.backgrounds.draw(
            choice, sampler, world_from_camera, camera_matrices_px, height, width, lights
        )
        linear = backdrop.mul_(1 - alpha).add_(rgb)
        return RenderOutput(photograph(linear, alpha, config.photometric, sampler), fragments)


def antialias(rgb: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Colour times coverage [B,3,H,W] and coverage [B,1,H,W], with silhouettes one pixel wide.

    The binary `alpha` is blurred over its stair-steps and steepened again, which moves an edge by
    a fraction of a pixel. `rgb` is black where `alpha` is zero, and is overwritten.
    """
    B, _, H, W = rgb.shape
    half = torch.full((B,), 0.25, device=rgb.device)
    soft = smooth_(smooth_(alpha.clone(), half), half).sub_(0.5).mul_(1.7).add_(0.5).clamp_(0, 1)
    # A pixel whose centre is bare takes the colour of its covered neighbours.
    flat, cover = rgb.transpose(0, 1).flatten(1), alpha.flatten()  # [3,BHW], [BHW]
    bare = ((soft > 0) & (alpha == 0)).view(-1).nonzero().squeeze(1)
    line = bare.int() // W  # of all images; divides twice as fast
    x, y, first = bare.int() - line * W, line % H, line // H * H
    total, weight = rgb.new_zeros(3, len(bare)), rgb.new_zeros(len(bare))
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        index = (first + (y + dy).clamp_(0, H - 1)).mul_(W).add_((x + dx).clamp_(0, W - 1))
        total += flat.index_select(1, index)
        weight += cover.index_select(0, index)
    flat.scatter_(1, bare.expand(3, -1), total.div_(weight.clamp(min=1)))
    soft.view(-1)[bare[weight == 0]] = 0
    return flat.view(3, B, H, W).transpose(0, 1).mul_(soft), soft
