"""What surfaces look like: colour, relief and gloss of skin, nails, cloth, things, hair and eyes.

Everything is looked up by the position at rest, so that texture stays on a moving surface. All
functions take flat lists of P pixels; a pixel's look is its image's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from handos_training.synth.mesh import Material
from handos_training.synth.noise import WaveNoise, visible_amplitude
from handos_training.synth.sampling import Sampler

_TONE = WaveNoise(0.035, 6)
_MOTTLE = WaveNoise(0.006, 8)
_VEIN = WaveNoise(0.030, 7, spread=0.5)
_SKIN_RELIEF = WaveNoise(0.0016, 12, spread=0.45)
_FOLDS = WaveNoise(0.075, 8, spread=0.5)
_WRINKLES = WaveNoise(0.022, 8, spread=0.5)
_WEAVE = WaveNoise(0.0018, 8)
_GRAIN = WaveNoise(0.004, 8, spread=0.6)
_BLOBS = WaveNoise(0.05, 8, spread=0.6)
_STRANDS = WaveNoise(0.003, 10, spread=0.5, stretch=(1, 12, 1))


@dataclass
class Surface:
    """What the light meets at P pixels."""

    albedo: Tensor  # [P,3] linear
    normal: Tensor  # [P,3] unit, with relief
    specular: Tensor  # [P,3] reflectance at normal incidence
    shininess: Tensor  # [P] Blinn-Phong exponent
    wrap: Tensor  # [P,3] how far light bleeds past the terminator (subsurface scattering)


@dataclass
class Pattern:
    """A print of two crossing stripe waves and noise, thresholded to a second colour."""

    waves: Tensor  # [B,2,3] radians per metre
    weights: Tensor  # [B,3] of the first wave, the second, and the noise
    warp: Tensor  # [B] radians by which the noise bends the waves
    threshold: Tensor  # [B]
    sharpness: Tensor  # [B]
    color: Tensor  # [B,3]
    strength: Tensor  # [B] 0 for a plain surface

    @classmethod
    def sample(cls, sampler: Sampler, B: int, plain: float, shortest_m: float) -> Pattern:
        axes = torch.eye(3, device=sampler.device)[
            torch.stack([torch.randperm(3, generator=sampler.generator, device=sampler.device)[:2]
                         for _ in range(B)])
        ]  # fmt: skip
        axes = axes + sampler.normal(0.08, B, 2, 3)
        period = sampler.log_uniform(shortest_m, 0.08, B, 2, 1)
        kinds = torch.tensor(
            [[1, 0, 0], [1, 0.9, 0], [0.2, 0, 1], [1, 0, 0.35]], device=sampler.device
        )
        kind = sampler.choice((0.35, 0.2, 0.25, 0.2), B)
        return cls(
            waves=axes * (2 * torch.pi / period),
            weights=kinds[kind],
            warp=torch.where(kind == 3, sampler.uniform(1, 4, B), sampler.uniform(0, 0.15, B)),
            threshold=sampler.normal(0.5, B),
            sharpness=sampler.log_uniform(1.5, 20, B),
            color=fabric_colors(sampler, B),
            strength=sampler.uniform(0.3, 1, B) * ~sampler.coin(plain, B),
        )


@dataclass
class Looks:
    """What differs from image to image; one entry an image."""

    shift_m: Tensor  # [B,3] where in the solid noise this image lies
    skin_mottle: Tensor  # [B]
    skin_relief: Tensor  # [B] slope
    skin_veins: Tensor  # [B]
    skin_shine: Tensor  # [B]
    fold_slope: Tensor  # [B]
    weave_slope: Tensor  # [B]
    metal: Tensor  # [B] bool, glossy things are metal
    cloth: Pattern
    rigid: Pattern

    @classmethod
    def sample(cls, sampler: Sampler, B: int) -> Looks:
        return cls(
            shift_m=sampler.uniform(-1, 1, B, 3),
            skin_mottle=sampler.uniform(0.3, 1.2, B),
            skin_relief=sampler.uniform(0.05, 0.28, B),
            skin_veins=sampler.uniform(0, 1, B) * sampler.coin(0.5, B),
            skin_shine=sampler.log_uniform(0.4, 1.6, B),
            fold_slope=sampler.uniform(0.1, 0.6, B),
            weave_slope=sampler.log_uniform(0.05, 0.6, B),
            metal=sampler.coin(0.4, B),
            cloth=Pattern.sample(sampler, B, plain=0.45, shortest_m=0.006),
            rigid=Pattern.sample(sampler, B, plain=0.35, shortest_m=0.004),
        )


def fabric_colors(sampler: Sampler, count: int) -> Tensor:
    """[count,3] linear: mostly greys, blues and browns as clothes and things have them."""
    lightness = sampler.uniform(0.02, 1, count, 1).square() * 0.8 + 0.015
    tint = sampler.normal(1, count, 3)
    tint = tint - tint.mean(1, keepdim=True)
    saturation = sampler.uniform(0, 1, count, 1).square() * 0.9
    return (lightness * (saturation * tint).exp()).clamp(0.01, 0.9)


@dataclass
class Pixels:
    """What geometry says about P pixels before any material does."""

    image: Tensor  # [P] int64
    rest_m: Tensor  # [P,3]
    albedo: Tensor  # [P,3]
    normal: Tensor  # [P,3] unit
    gloss: Tensor  # [P]
    footprint_m: Tensor  # [P] size of a pixel on the surface

    def __getitem__(self, index: Tensor) -> Pixels:
        values = (getattr(self, f.name).index_select(0, index) for f in fields(self))
        return Pixels(*values)


def surface(pixels: Pixels, material: Tensor, looks: Looks) -> Surface:
    """Apply each material to the pixels [P] that are made of it."""
    P = len(material)
    color = pixels.albedo.new_zeros
    result = Surface(color(P, 3), color(P, 3), color(P, 3), color(P), color(P, 3))
    for kind, appearance in _APPEARANCES.items():
        index = (material == kind).nonzero().squeeze(1)
        if len(index):
            part = appearance(pixels[index], looks)
            for f in fields(Surface):
                getattr(result, f.name).index_copy_(0, index, getattr(part, f.name))
    return result


def _skin(pixels: Pixels, looks: Looks) -> Surface:
    image, position = pixels.image, pixels.rest_m
    amount = looks.skin_mottle[image]
    blood = 0.55 * _TONE(position) + 0.5 * _MOTTLE(position) * visible_amplitude(
        _MOTTLE.wavelength_m, pixels.footprint_m
    )
    blood *= amount
    tint = blood.new_tensor([0.015, -0.06, -0.055])
    albedo = pixels.albedo * (1 + blood[:, None] * tint)
    vein = (-(_VEIN(position) / 0.16).square_()).exp_() * looks.skin_veins[image]
    albedo *= 1 - vein[:, None] * vein.new_tensor([0.2, 0.09, 0.02])
    visible = visible_amplitude(_SKIN_RELIEF.wavelength_m, pixels.footprint_m)
    value, slope = _SKIN_RELIEF.with_gradient(position)
    # Furrows: the noise folded at zero has sharp valleys, as the skin's lines are.
    slope *= (-value * 3).clamp_(-1, 1)[:, None]
    albedo *= (1 - 0.08 * amount * visible * (1 - value.abs().clamp_(max=1)))[:, None]
    normal = _with_relief(pixels.normal, slope, looks.skin_relief[image] * visible)
    gloss = pixels.gloss * looks.skin_shine[image] * (1 + 0.25 * blood)
    return Surface(
        albedo,
        normal,
        (0.028 * gloss.clamp(0.2, 2) / 0.5)[:, None].expand(-1, 3),
        8 + 40 * gloss.clamp(0, 1),
        albedo.new_tensor([0.38, 0.17, 0.09]).expand(len(image), 3),
    )


def _nail(pixels: Pixels, looks: Looks) -> Surface:
    tone = _MOTTLE(pixels.rest_m * 0.5)
    return Surface(
        pixels.albedo * (1 + 0.03 * tone[:, None]),
        pixels.normal,
        torch.full_like(pixels.albedo, 0.05),
        60 + 120 * pixels.gloss,
        pixels.albedo.new_tensor([0.25, 0.12, 0.08]).expand_as(pixels.albedo),
    )


def _cloth(pixels: Pixels, looks: Looks) -> Surface:
    image, position = pixels.image, pixels.rest_m
    _, folds = _FOLDS.with_gradient(position)
    _, wrinkles = _WRINKLES.with_gradient(position)
    folds.add_(wrinkles, alpha=0.4).mul_(looks.fold_slope[image][:, None])
    thread, weave = _WEAVE.with_gradient(position)
    visible = visible_amplitude(_WEAVE.wavelength_m, pixels.footprint_m)
    visible = visible * looks.weave_slope[image]
    folds.addcmul_(weave, visible[:, None])
    albedo = _print(pixels, looks.cloth) * (1 + 0.35 * visible * thread)[:, None]
    return Surface(
        albedo,
        _with_relief(pixels.normal, folds, None),
        (0.005 + 0.03 * pixels.gloss)[:, None].expand(-1, 3),
        6 + 20 * pixels.gloss,
        torch.full_like(albedo, 0.12),
    )


def _rigid(pixels: Pixels, looks: Looks) -> Surface:
    albedo = _print(pixels, looks.rigid)
    value, slope = _GRAIN.with_gradient(pixels.rest_m)
    visible = visible_amplitude(_GRAIN.wavelength_m, pixels.footprint_m) * (1 - pixels.gloss)
    albedo = albedo * (1 + 0.07 * visible * value)[:, None]
    metal = (looks.metal[pixels.image] & (pixels.gloss > 0.6))[:, None]
    return Surface(
        torch.where(metal, 0.08 * albedo, albedo),
        _with_relief(pixels.normal, slope, 0.12 * visible),
        torch.where(metal, 0.35 + 0.6 * albedo, 0.04 * albedo.new_ones(1, 3)),
        8 + 250 * pixels.gloss.square(),
        torch.zeros_like(albedo),
    )


def _hair(pixels: Pixels, looks: Looks) -> Surface:
    value, slope = _STRANDS.with_gradient(pixels.rest_m)
    lock, bend = _WRINKLES.with_gradient(pixels.rest_m)
    visible = visible_amplitude(_STRANDS.wavelength_m, pixels.footprint_m)
    shade = (0.35 * lock + 0.35 * visible * value).exp_()
    slope = 0.6 * visible[:, None] * slope + 0.5 * bend
    albedo = (pixels.albedo * shade[:, None]).clamp_(max=0.9)
    return Surface(
        albedo,
        _with_relief(pixels.normal, slope, None),
        torch.full_like(albedo, 0.03),
        torch.full_like(shade, 18.0),
        torch.full_like(albedo, 0.2),
    )


def _eye(pixels: Pixels, looks: Looks) -> Surface:
    return Surface(
        pixels.albedo,
        pixels.normal,
        torch.full_like(pixels.albedo, 0.04),
        torch.full_like(pixels.gloss, 300.0),
        torch.full_like(pixels.albedo, 0.1),
    )


_APPEARANCES = {
    Material.SKIN: _skin,
    Material.NAIL: _nail,
    Material.CLOTH: _cloth,
    Material.RIGID: _rigid,
    Material.HAIR: _hair,
    Material.EYE: _eye,
}


def _print(pixels: Pixels, pattern: Pattern) -> Tensor:
    """Albedo [P,3] with the image's pattern on it."""
    image = pixels.image
    noise = _BLOBS(pixels.rest_m)
    waves = pattern.waves.index_select(0, image)
    phase = (waves * pixels.rest_m[:, None]).sum(2)
    phase += (pattern.warp.index_select(0, image) * noise)[:, None]
    # A stripe narrower than a pixel fades to its mean instead of flickering.
    period = 2 * torch.pi / waves.norm(dim=2)
    visible = visible_amplitude(period, pixels.footprint_m[:, None])
    height = torch.cat([phase.sin_(), noise[:, None]], 1)
    height = (height * pattern.weights.index_select(0, image)).sum(1)
    edge = pattern.sharpness.index_select(0, image) * visible.amin(1)
    mix = torch.sigmoid((height - pattern.threshold.index_select(0, image)) * edge)
    mix = (mix * pattern.strength.index_select(0, image))[:, None]
    return torch.lerp(pixels.albedo, pattern.color.index_select(0, image), mix)


def _with_relief(normal: Tensor, slope: Tensor, amount: Tensor | None) -> Tensor:
    """Normals [P,3] of a surface that rises along `slope` [P,3], scaled by `amount` [P]."""
    tangent = slope - (slope * normal).sum(1, keepdim=True) * normal
    if amount is not None:
        tangent = tangent * amount[:, None]
    return torch.nn.functional.normalize(normal - tangent, dim=1)
