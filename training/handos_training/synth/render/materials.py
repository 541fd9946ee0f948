"""What surfaces look like: colour, relief and gloss of skin, nails, cloth, things, hair and eyes.

Everything is looked up by the position at rest, so that texture stays on a moving surface. All
functions take flat lists of P pixels, channel-first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handos_training.synth.render.mesh import Material
from handos_training.synth.render.noise import WaveNoise, visible_amplitude
from handos_training.synth.render.pixels import dot, take, unit
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

    albedo: Tensor  # [3,P] linear
    normal: Tensor  # [3,P] unit, with relief
    specular: Tensor  # [3,P] or [1,P], reflectance at normal incidence
    shininess: Tensor  # [P] Blinn-Phong exponent
    wrap: tuple[float, float, float]  # how far red, green and blue bleed past the terminator


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
        first = sampler.integers(3, B)
        other = (first + 1 + sampler.integers(2, B)) % 3
        axes = torch.eye(3, device=sampler.device)[torch.stack([first, other], 1)]
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

    look: Tensor  # [P] int64, the entry of the looks that it has
    rest_m: Tensor  # [3,P]
    albedo: Tensor  # [3,P]
    normal: Tensor  # [3,P] unit
    gloss: Tensor  # [P]
    footprint_m: Tensor  # [P] size of a pixel on the surface


def surface(material: Material, pixels: Pixels, looks: Looks) -> Surface:
    """What pixels of one material look like."""
    return _APPEARANCES[material](pixels, looks)


def _skin(pixels: Pixels, looks: Looks) -> Surface:
    look, position = pixels.look, pixels.rest_m
    amount = take(looks.skin_mottle, look)
    blood = _MOTTLE(position).mul_(visible_amplitude(_MOTTLE.wavelength_m, pixels.footprint_m))
    blood = blood.mul_(0.5).add_(_TONE(position), alpha=0.55).mul_(amount)
    vein = (_VEIN(position) / 0.25).square_().neg_().exp_().mul_(take(looks.skin_veins, look))
    visible = visible_amplitude(_SKIN_RELIEF.wavelength_m, pixels.footprint_m)
    value, slope = _SKIN_RELIEF.with_gradient(position)
    furrow = (1 - value.abs().clamp_(max=1)).mul_(amount).mul_(visible)
    albedo = torch.stack(
        [
            color * (1 + red * blood).sub_(vein, alpha=blue).sub_(furrow, alpha=0.08)
            for color, red, blue in zip(
                pixels.albedo, (0.015, -0.06, -0.055), (0.1, 0.045, 0.01), strict=True
            )
        ]
    )
    # Furrows: the noise folded at zero has sharp valleys, as the skin's lines are.
    slope *= value.mul_(-3).clamp_(-1, 1).mul_(visible).mul_(take(looks.skin_relief, look))
    gloss = blood.mul_(0.25).add_(1).mul_(pixels.gloss).mul_(take(looks.skin_shine, look))
    return Surface(
        albedo,
        _with_relief(pixels.normal, slope),
        (0.056 * gloss.clamp(0.2, 2))[None],
        8 + 40 * gloss.clamp(0, 1),
        (0.38, 0.17, 0.09),
    )


def _nail(pixels: Pixels, looks: Looks) -> Surface:
    tone = _MOTTLE(pixels.rest_m * 0.5)
    return Surface(
        pixels.albedo * (1 + 0.03 * tone),
        pixels.normal,
        torch.full_like(tone, 0.05)[None],
        60 + 120 * pixels.gloss,
        (0.25, 0.12, 0.08),
    )


def _cloth(pixels: Pixels, looks: Looks) -> Surface:
    look, position = pixels.look, pixels.rest_m
    _, folds = _FOLDS.with_gradient(position)
    _, wrinkles = _WRINKLES.with_gradient(position)
    folds.add_(wrinkles, alpha=0.4).mul_(take(looks.fold_slope, look))
    thread, weave = _WEAVE.with_gradient(position)
    visible = visible_amplitude(_WEAVE.wavelength_m, pixels.footprint_m)
    visible *= take(looks.weave_slope, look)
    folds.addcmul_(weave, visible)
    return Surface(
        printed(pixels, looks.cloth) * (1 + 0.35 * visible * thread),
        _with_relief(pixels.normal, folds),
        (0.005 + 0.03 * pixels.gloss)[None],
        6 + 20 * pixels.gloss,
        (0.12, 0.12, 0.12),
    )


def _rigid(pixels: Pixels, looks: Looks) -> Surface:
    albedo = printed(pixels, looks.rigid)
    value, slope = _GRAIN.with_gradient(pixels.rest_m)
    visible = visible_amplitude(_GRAIN.wavelength_m, pixels.footprint_m) * (1 - pixels.gloss)
    albedo *= 1 + 0.07 * visible * value
    metal = take(looks.metal, pixels.look) & (pixels.gloss > 0.6)
    return Surface(
        torch.where(metal, 0.08 * albedo, albedo),
        _with_relief(pixels.normal, slope.mul_(0.12 * visible)),
        torch.where(metal, 0.35 + 0.6 * albedo, 0.04),
        8 + 250 * pixels.gloss.square(),
        (0, 0, 0),
    )


def _hair(pixels: Pixels, looks: Looks) -> Surface:
    value, slope = _STRANDS.with_gradient(pixels.rest_m)
    lock, bend = _WRINKLES.with_gradient(pixels.rest_m)
    visible = visible_amplitude(_STRANDS.wavelength_m, pixels.footprint_m)
    shade = (0.35 * lock + 0.35 * visible * value).exp_()
    return Surface(
        (pixels.albedo * shade).clamp_(max=0.9),
        _with_relief(pixels.normal, 0.6 * visible * slope + 0.5 * bend),
        torch.full_like(shade, 0.03)[None],
        torch.full_like(shade, 18.0),
        (0.2, 0.2, 0.2),
    )


def _eye(pixels: Pixels, looks: Looks) -> Surface:
    return Surface(
        pixels.albedo,
        pixels.normal,
        torch.full_like(pixels.gloss, 0.04)[None],
        torch.full_like(pixels.gloss, 300.0),
        (0.1, 0.1, 0.1),
    )


_APPEARANCES = {
    Material.SKIN: _skin,
    Material.NAIL: _nail,
    Material.CLOTH: _cloth,
    Material.RIGID: _rigid,
    Material.HAIR: _hair,
    Material.EYE: _eye,
}


def printed(pixels: Pixels, pattern: Pattern) -> Tensor:
    """Albedo [3,P] with each pixel's pattern on it."""
    look = pixels.look
    noise = _BLOBS(pixels.rest_m)
    warp, threshold = take(pattern.warp, look), take(pattern.threshold, look)
    weights = take(pattern.weights, look)
    height = weights[2] * noise
    edge = take(pattern.sharpness, look)
    # A stripe narrower than a pixel fades to its mean instead of flickering.
    period = 2 * torch.pi / pattern.waves.norm(dim=2)
    for wave in range(2):
        phase = dot(take(pattern.waves[:, wave], look), pixels.rest_m).addcmul_(warp, noise)
        height.addcmul_(weights[wave], phase.sin_())
        visible = visible_amplitude(take(period[:, wave], look), pixels.footprint_m)
        edge *= torch.where(weights[wave] > 0, visible, 1)
    mix = torch.sigmoid_((height - threshold).mul_(edge)).mul_(take(pattern.strength, look))
    return torch.lerp(pixels.albedo, take(pattern.color, look), mix)


def _with_relief(normal: Tensor, slope: Tensor) -> Tensor:
    """Normals [3,P] of a surface that rises along `slope` [3,P]."""
    along = dot(slope, normal)
    return unit((normal * (1 + along)).sub_(slope))
