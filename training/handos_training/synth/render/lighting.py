"""Environment light as nine spherical harmonics, and one key light that casts shadows.

World frame: x right, y down, z forward at zero yaw (the camera's own axes when it is level).
Irradiance is divided by pi throughout, so that a white surface under uniform radiance 1 shows 1.
Coefficients follow Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance
Environment Maps", 2001.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from handos_training.synth.render.pixels import take
from handos_training.synth.sampling import Sampler, axis_angle_matrix

# The cosine lobe's coefficients by degree, over pi.
_COSINE_LOBE = (1.0, *(2 / 3,) * 3, *(1 / 4,) * 5)
HIGHLIGHT = 6.0  # radiance above it (mean 1) is the key light's, not the ambient light's
MAX_KEY = 2.0

# Linear RGB of common lights: candle, bulb, warm LED, neutral, daylight, shade, and coloured ones.
LIGHT_COLORS = (
    (1.5, 0.85, 0.35), (1.3, 0.95, 0.6), (1.15, 0.98, 0.8), (1.0, 1.0, 1.0), (0.92, 1.0, 1.12),
    (0.8, 0.98, 1.3), (1.5, 0.5, 0.6), (0.5, 0.8, 1.7), (0.6, 1.3, 0.7), (1.2, 0.6, 1.4),
)  # fmt: skip
_LIGHT_WEIGHTS = (0.06, 0.2, 0.25, 0.25, 0.2, 0.12, 0.015, 0.015, 0.015, 0.015)


@dataclass
class Lights:
    """What lights each image, in its camera's frame."""

    harmonics: Tensor  # [B,9,3] of irradiance / pi
    key_direction: Tensor  # [B,3] unit, towards the light
    key_color: Tensor  # [B,3] irradiance / pi of a surface that faces the light
    key_radius: Tensor  # [B] radians, half the light's apparent size: how soft shadows are

    def __getitem__(self, index: Tensor) -> Lights:
        return Lights(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass
class Environments:
    """Panoramas and the light that they give, in the world frame."""

    panoramas: Tensor  # [E,3,h,w] linear radiance, mean 1
    harmonics: Tensor  # [E,9,3]
    key_direction: Tensor  # [E,3]
    key_color: Tensor  # [E,3]

    @classmethod
    def from_panoramas(cls, panoramas: Tensor) -> Environments:
        """Split each panorama into ambient light and its strongest concentrated light."""
        height, width = panoramas.shape[2:]
        direction = panorama_directions(height, width).to(panoramas)
        polar = (torch.arange(height).to(panoramas) + 0.5) / height * math.pi
        solid_angle = (polar.sin() * (math.pi / height) * (2 * math.pi / width))[:, None]
        excess = (panoramas - HIGHLIGHT).clamp(min=0)
        solid_angle = solid_angle.expand(height, width)
        power = torch.einsum('echw,hw->ec', excess, solid_angle)
        moment = torch.einsum('echw,hw,hwk->ek', excess, solid_angle, direction)
        # 1 for a single lamp, 0 for lamps all around: those stay in the ambient light.
        concentration = moment.norm(dim=1) / power.sum(1).clamp(min=1e-6)
        color = power * concentration[:, None] / math.pi
        strength = color.amax(1, keepdim=True)
        color = color * (MAX_KEY / strength.clamp(min=MAX_KEY))
        ambient = (panoramas - excess) + (1 - concentration)[:, None, None, None] * excess
        basis = harmonic_basis(direction) * solid_angle[..., None]
        harmonics = torch.einsum('echw,hwk->ekc', ambient, basis) * _lobe(panoramas)[:, None]
        key = torch.nn.functional.normalize(moment + 1e-6, dim=1)
        return cls(panoramas, harmonics, key, color)

    def to(self, device: torch.device | str) -> Environments:
        return Environments(
            self.panoramas.to(device),
            self.harmonics.to(device),
            self.key_direction.to(device),
            self.key_color.to(device),
        )


def panorama_directions(height: int, width: int) -> Tensor:
    """World direction [h,w,3] of each pixel of an equirectangular image."""
    polar = (torch.arange(height) + 0.5) / height * math.pi
    azimuth = ((torch.arange(width) + 0.5) / width * 2 - 1) * math.pi
    polar, azimuth = torch.meshgrid(polar, azimuth, indexing='ij')
    return torch.stack(
        [polar.sin() * azimuth.sin(), -polar.cos(), polar.sin() * azimuth.cos()], -1
    )


def panorama_grid(direction: Tensor) -> Tensor:
    """Where `grid_sample` finds unit world directions [...,3] in a panorama, [...,2]."""
    x, y, z = direction.unbind(-1)
    polar = torch.acos((-y).clamp(-1, 1))
    return torch.stack([torch.atan2(x, z) / math.pi, polar * (2 / math.pi) - 1], -1)


def harmonic_basis(direction: Tensor) -> Tensor:
    """The nine real spherical harmonics up to degree 2 of unit directions [...,3], [...,9]."""
    x, y, z = direction.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        -1,
    )


def irradiance(harmonics: Tensor, normal: Tensor, image: Tensor) -> Tensor:
    """Irradiance / pi [3,P] at unit normals [3,P] in images [P] under `harmonics` [B,9,3]."""
    basis = harmonic_basis(normal.T).T.contiguous()
    coefficients = take(harmonics, image).view(9, 3, -1)
    total = coefficients[0] * basis[0]
    for k in range(1, 9):
        total.addcmul_(coefficients[k], basis[k])
    return total.clamp_(min=0)


def rotate_harmonics(harmonics: Tensor, new_from_old: Tensor) -> Tensor:
    """`harmonics` [B,9,3] in a frame rotated by `new_from_old` [B,3,3]."""
    # Exact: nine well-spread directions determine the nine coefficients of either frame.
    index = torch.arange(32, device=harmonics.device)
    height, azimuth = 1 - (2 * index + 1) / 32, index * (math.pi * (3 - math.sqrt(5)))
    ring = (1 - height**2).sqrt()
    spread = torch.stack([ring * azimuth.cos(), height, ring * azimuth.sin()], -1)
    old = harmonic_basis(spread @ new_from_old) @ harmonics
    inverse: Tensor = torch.linalg.pinv(harmonic_basis(spread))
    return inverse @ old


def light_colors(sampler: Sampler, count: int) -> Tensor:
    """[count,3] colours of plausible lamps, now and then strongly tinted."""
    table = torch.tensor(LIGHT_COLORS, device=sampler.device)
    color = table[sampler.choice(_LIGHT_WEIGHTS, count)]
    return color * sampler.uniform(0.93, 1.07, count, 3)


def directions(sampler: Sampler, count: int, lowest_deg: float = -10) -> Tensor:
    """[count,3] world directions above the horizon, more of them high than low."""
    azimuth = sampler.uniform(-math.pi, math.pi, count)
    low = math.sin(math.radians(lowest_deg))
    height = low + (1 - low) * sampler.uniform(0, 1, count)
    ring = (1 - height**2).sqrt()
    return torch.stack([ring * azimuth.sin(), -height, ring * azimuth.cos()], -1)


def room_lights(sampler: Sampler, world_from_camera: Tensor, lamps: int = 3) -> Lights:
    """Light of invented rooms and streets: bright sky or ceiling, dark ground, a few lamps."""
    B, device = len(world_from_camera), world_from_camera.device
    up = torch.tensor([0.0, -1, 0], device=device).expand(B, 3)
    # Many lamps and white walls mix to a light that is less coloured than any one of them.
    sky = light_colors(sampler, B).sqrt() * sampler.log_uniform(0.2, 0.8, B, 1)
    ground = sky * sampler.uniform(0.15, 0.8, B, 3) * sampler.uniform(0.4, 1, B, 1)
    harmonics = torch.zeros(B, 9, 3, device=device)
    harmonics[:, 0] = 0.5 * (sky + ground) / 0.282095
    harmonics += _soft_light(up, 0.35 * (sky - ground))
    for _ in range(lamps):
        strength = sampler.log_uniform(0.05, 0.7, B, 1) * sampler.coin(0.6, B, 1)
        color = light_colors(sampler, B) * strength
        harmonics += _soft_light(directions(sampler, B), color)
    key_color = light_colors(sampler, B) * sampler.log_uniform(0.25, 2.5, B, 1)
    key_color = key_color * sampler.coin(0.85, B, 1)
    return _to_camera(
        harmonics,
        directions(sampler, B, 5),
        key_color,
        sampler.log_uniform(0.01, 0.25, B),
        world_from_camera,
    )


def panorama_lights(
    environments: Environments, index: Tensor, sampler: Sampler, world_from_camera: Tensor
) -> Lights:
    """Light of the panoramas `index` [B]."""
    return _to_camera(
        environments.harmonics[index],
        environments.key_direction[index],
        environments.key_color[index],
        sampler.log_uniform(0.006, 0.1, len(index)),
        world_from_camera,
    )


def select_lights(condition: Tensor, a: Lights, b: Lights) -> Lights:
    """`a` where `condition` [B], else `b`."""
    return Lights(
        torch.where(condition[:, None, None], a.harmonics, b.harmonics),
        torch.where(condition[:, None], a.key_direction, b.key_direction),
        torch.where(condition[:, None], a.key_color, b.key_color),
        torch.where(condition, a.key_radius, b.key_radius),
    )


def sample_world_from_camera(sampler: Sampler, count: int, up: Tensor | None = None) -> Tensor:
    """Camera orientations [count,3,3] of any yaw, about level or with `up` [count,3] given."""
    axes = torch.eye(3, device=sampler.device)
    yaw = axis_angle_matrix(axes[1], sampler.uniform(-math.pi, math.pi, count))
    if up is None:
        pitch = axis_angle_matrix(axes[0], sampler.normal(0.35, count) - 0.15)
        return yaw @ pitch @ axis_angle_matrix(axes[2], sampler.normal(0.12, count))
    down = torch.nn.functional.normalize(-up, dim=1)
    # World x is any direction square to gravity; the forward axis unless that is gravity itself.
    helper = torch.where(down[:, 2:].abs() < 0.9, axes[2], axes[0])
    right = torch.nn.functional.normalize(torch.linalg.cross(down, helper), dim=1)
    level = torch.stack([right, down, torch.linalg.cross(right, down)], 1)
    return yaw @ level


def _lobe(like: Tensor) -> Tensor:
    return torch.tensor(_COSINE_LOBE).to(like)


def _soft_light(direction: Tensor, color: Tensor) -> Tensor:
    """Harmonics [B,9,3] of a broad light that gives `color` to a surface facing it."""
    lobe = _lobe(color)
    lobe = lobe / (harmonic_basis(direction[:1]).square() @ lobe)
    return (harmonic_basis(direction) * lobe)[..., None] * color[:, None]


def _to_camera(
    harmonics: Tensor, key: Tensor, color: Tensor, radius: Tensor, world_from_camera: Tensor
) -> Lights:
    camera_from_world = world_from_camera.transpose(1, 2)
    key = (camera_from_world @ key[..., None])[..., 0]
    return Lights(rotate_harmonics(harmonics, camera_from_world), key, color, radius)
