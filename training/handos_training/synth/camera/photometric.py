"""From linear light to the picture a camera stores: lens, sensor, tone curve, compression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from handos_training.synth.camera.filters import gaussian_blur, motion_blur, smooth_
from handos_training.synth.camera.jpeg import compress
from handos_training.synth.sampling import Sampler


@dataclass(frozen=True)
class PhotometricConfig:
    """How often each effect strikes; most images are mild and a few are bad."""

    defocus_fraction: float = 0.12
    motion_fraction: float = 0.15
    rescale_fraction: float = 0.12
    sharpen_fraction: float = 0.25
    jpeg_fraction: float = 0.6
    exposure_stops: float = 0.45  # standard deviation about a good exposure
    white_balance: float = 0.07  # standard deviation of the logarithm of each channel's gain

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= (1 if name.endswith('fraction') else 3):
                raise ValueError(f'{name} is out of range: {value}')


# Images at once: on a CPU, what fits its cache; elsewhere, what is worth a launch.
CHUNK_PIXELS = {'cpu': 1 << 19}
LARGE_CHUNK_PIXELS = 1 << 25
# The three channels read one noise field at places this many pixels apart.
NOISE_STRIDE_PX = (5, 17)


def photograph(
    linear: Tensor, foreground: Tensor, config: PhotometricConfig, sampler: Sampler
) -> Tensor:
    """uint8 [B,3,H,W] of linear light [B,3,H,W]; exposed for `foreground` [B,1,H,W] above all.

    `linear` is overwritten.
    """
    pixels = CHUNK_PIXELS.get(linear.device.type, LARGE_CHUNK_PIXELS)
    size = max(1, pixels // (linear.shape[2] * linear.shape[3]))
    chunks = [slice(i, i + size) for i in range(0, len(linear), size)]
    parts = [_photograph(linear[c], foreground[c], config, sampler) for c in chunks]
    return torch.cat(parts)


def _photograph(
    x: Tensor, foreground: Tensor, config: PhotometricConfig, sampler: Sampler
) -> Tensor:
    B = len(x)
    _lens_(x, config, sampler)
    x *= _exposure(x, foreground, config, sampler)
    x *= _vignette(x, sampler)
    _sensor_(x, sampler)
    x = _develop(x, sampler)
    _rescale_(x, config, sampler)
    _sharpen_(x, config, sampler)
    x.clamp_(0, 1).mul_(255)
    chosen = _chosen(config.jpeg_fraction, B, sampler)
    if len(chosen):
        quality = sampler.uniform(0, 1, len(chosen)).sqrt() * 65 + 30
        x[chosen] = compress(x[chosen], quality)
    return x.add_(0.5).to(torch.uint8)


def _chosen(fraction: float, count: int, sampler: Sampler) -> Tensor:
    return sampler.coin(fraction, count).nonzero().squeeze(1)


def _lens_(x: Tensor, config: PhotometricConfig, sampler: Sampler) -> None:
    B, _, H, _ = x.shape
    # Optics and demosaicing spread every point over its neighbours; it also smooths stair-steps.
    smooth_(x, sampler.uniform(0.05, 0.25, B))
    chosen = _chosen(config.defocus_fraction, B, sampler)
    if len(chosen):
        sigma = sampler.log_uniform(0.7, 2.5, len(chosen)) * H / 480 + 0.3
        x[chosen] = gaussian_blur(x[chosen], sigma)
    chosen = _chosen(config.motion_fraction, B, sampler)
    if len(chosen):
        length = sampler.log_uniform(3, 14, len(chosen)) * H / 480 + 1
        angle = sampler.uniform(0, torch.pi, len(chosen))
        # A moving picture is soft across its motion too; half the size costs a sixteenth.
        small = F.interpolate(x[chosen], scale_factor=0.5, mode='area')
        small = motion_blur(small, length / 2, angle)
        x[chosen] = F.interpolate(small, size=x.shape[2:], mode='bilinear', antialias=True)


def _exposure(
    x: Tensor, foreground: Tensor, config: PhotometricConfig, sampler: Sampler
) -> Tensor:
    """[B,3,1,1] gains of exposure and white balance."""
    B = len(x)
    # A meter that sees bright windows as three stops over the rest, not as ten.
    luminance = x[:, :, ::4, ::4].mean(1)
    typical = luminance.clamp(min=1e-6).log().mean((1, 2), keepdim=True).exp()
    luminance = torch.minimum(luminance, 8 * typical)
    seen = foreground[:, 0, ::4, ::4]
    everywhere = luminance.mean((1, 2))
    subject = (luminance * seen).sum((1, 2)) / seen.sum((1, 2)).clamp(min=1e-3)
    mean = torch.where(seen.sum((1, 2)) > 0, (everywhere + subject) / 2, everywhere)
    stops = sampler.normal(config.exposure_stops, B).clamp(-1.6, 1.3)
    exposure = 0.26 / mean.clamp(min=1e-5) * torch.exp2(stops)
    balance = sampler.normal(config.white_balance, B, 3).exp()
    return (exposure[:, None] * balance)[..., None, None]


def _vignette(x: Tensor, sampler: Sampler) -> Tensor:
    """[B,1,H,W] falloff towards the corners, in about half of the images."""
    B, _, H, W = x.shape
    y = torch.linspace(-1, 1, H, device=x.device)[:, None].square()
    radius = (y + torch.linspace(-1, 1, W, device=x.device).square()) / 2
    falloff = sampler.uniform(0, 0.5, B) * sampler.coin(0.6, B)
    return 1 - falloff[:, None, None, None] * radius


def _sensor_(x: Tensor, sampler: Sampler) -> None:
    """Shot and read noise (Foi et al., "Poissonian-Gaussian noise modeling", 2008)."""
    B, _, H, W = x.shape
    shot = sampler.log_uniform(1e-5, 4e-3, B)[:, None, None, None]
    read = sampler.log_uniform(5e-4, 1.2e-2, B)[:, None, None, None]
    dy, dx = NOISE_STRIDE_PX
    field = sampler.normal(1, B, 1, H + 2 * dy, W + 2 * dx)
    # Half of the cameras denoise: what is left of the noise is in blotches.
    blotchy = _chosen(0.5, B, sampler)
    if len(blotchy):
        amount = torch.full((len(blotchy),), 0.2, device=x.device)
        field[blotchy] = smooth_(field[blotchy], amount).mul_(1.7)
    variance = (x * shot).add_(read.square())
    deviation = variance.clamp_(min=0).sqrt_()
    for c in range(3):
        noise = field[:, 0, dy * c : dy * c + H, dx * c : dx * c + W]
        x[:, c].addcmul_(deviation[:, c], noise)
    x.clamp_(min=0)


def _develop(x: Tensor, sampler: Sampler) -> Tensor:
    """Tone curve, saturation and contrast; linear in, display-encoded in about [0,1] out."""
    B = len(x)
    # A shoulder that rolls highlights off, then the exponent 1 / 2.2 as a sum of roots.
    knee = sampler.uniform(0.05, 0.5, B)[:, None, None, None]
    x = (x * (1 + knee)).div_((x * knee).add_(1)).clamp_(1e-6, 1.5)
    encoded = encode_(x)
    saturation = sampler.uniform(0.7, 1.25, B)[:, None, None, None]
    saturation = saturation * ~sampler.coin(0.03, B)[:, None, None, None]
    contrast = sampler.uniform(0.88, 1.18, B)[:, None, None, None]
    lift = sampler.normal(0.02, B)[:, None, None, None]
    # out = contrast (grey + saturation (x - grey) - 0.45) + 0.45 + lift, in two passes.
    grey = encoded.mean(1, keepdim=True).mul_((1 - saturation) * contrast)
    grey += 0.45 * (1 - contrast) + lift
    return encoded.mul_(saturation * contrast).add_(grey)


def encode_(x: Tensor) -> Tensor:
    """sRGB's transfer curve of linear [0,1], in place, as a sum of roots; within 0.012."""
    root = x.sqrt_()
    fourth = root.sqrt()
    eighth = fourth.sqrt()
    return root.mul_(0.7852).add_(fourth, alpha=0.4356).add_(eighth, alpha=-0.2206).add_(0.0112)


def _rescale_(x: Tensor, config: PhotometricConfig, sampler: Sampler) -> None:
    """Some pictures were smaller once."""
    chosen = _chosen(config.rescale_fraction, len(x), sampler)
    if len(chosen):
        H, W = x.shape[2:]
        factor = float(sampler.uniform(0.4, 0.8, 1))
        size = (max(8, int(H * factor)), max(8, int(W * factor)))
        small = F.interpolate(x[chosen], size=size, mode='area')
        x[chosen] = F.interpolate(small, size=(H, W), mode='bilinear', antialias=True)


def _sharpen_(x: Tensor, config: PhotometricConfig, sampler: Sampler) -> None:
    """The halo of a camera that sharpens too much."""
    chosen = _chosen(config.sharpen_fraction, len(x), sampler)
    if len(chosen):
        part = x[chosen]
        blurred = smooth_(part.clone(), torch.full((len(chosen),), 0.25, device=x.device))
        amount = sampler.uniform(0.3, 1.2, len(chosen))[:, None, None, None]
        x[chosen] = torch.lerp(blurred, part, 1 + amount)
