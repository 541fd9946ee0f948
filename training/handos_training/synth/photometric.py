"""From linear light to the picture a camera stores: lens, sensor, tone curve, compression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from handos_training.synth.filters import gaussian_blur, motion_blur, smooth
from handos_training.synth.jpeg import compress
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


def photograph(
    linear: Tensor, foreground: Tensor, config: PhotometricConfig, sampler: Sampler
) -> Tensor:
    """uint8 [B,3,H,W] of linear light [B,3,H,W]; exposed for `foreground` [B,H,W] above all."""
    B = len(linear)
    linear = _lens(linear, config, sampler)
    linear = linear * _gain(linear, foreground, config, sampler)
    linear = _sensor(linear, sampler)
    image = _develop(linear, sampler)
    image = _rescale(image, config, sampler)
    image = _sharpen(image, config, sampler)
    image = image.clamp_(0, 1).mul_(255)
    chosen = _chosen(config.jpeg_fraction, B, sampler)
    if len(chosen):
        quality = sampler.uniform(0, 1, len(chosen)).sqrt() * 65 + 30
        image[chosen] = compress(image[chosen], quality)
    return image.add_(0.5).clamp_(0, 255).to(torch.uint8)


def _chosen(fraction: float, count: int, sampler: Sampler) -> Tensor:
    return sampler.coin(fraction, count).nonzero().squeeze(1)


def _lens(x: Tensor, config: PhotometricConfig, sampler: Sampler) -> Tensor:
    B, _, H, _ = x.shape
    # Optics and demosaicing spread every point over its neighbours; it also smooths stair-steps.
    x = smooth(x, sampler.uniform(0.08, 0.25, B))
    chosen = _chosen(config.defocus_fraction, B, sampler)
    if len(chosen):
        sigma = sampler.log_uniform(0.7, 2.5, len(chosen)) * H / 480 + 0.3
        x[chosen] = gaussian_blur(x[chosen], sigma)
    chosen = _chosen(config.motion_fraction, B, sampler)
    if len(chosen):
        length = sampler.log_uniform(2, 14, len(chosen)) * H / 480 + 1
        x[chosen] = motion_blur(x[chosen], length, sampler.uniform(0, torch.pi, len(chosen)))
    return x


def _gain(x: Tensor, foreground: Tensor, config: PhotometricConfig, sampler: Sampler) -> Tensor:
    """[B,3,H,W] exposure, white balance and vignetting in one factor."""
    B, _, H, W = x.shape
    # A meter that sees bright windows as one stop over the rest, not as ten.
    luminance = x[:, :, ::4, ::4].mean(1).clamp(max=4)
    weight = 0.35 + foreground[:, ::4, ::4]
    mean = (luminance * weight).sum((1, 2)) / weight.sum((1, 2))
    stops = sampler.normal(config.exposure_stops, B).clamp(-1.6, 1.3)
    exposure = 0.26 / mean.clamp(min=1e-3) * torch.exp2(stops)
    balance = sampler.normal(config.white_balance, B, 3).exp()
    y = torch.linspace(-1, 1, H, device=x.device)[:, None].square()
    radius = (y + torch.linspace(-1, 1, W, device=x.device).square())[None] / 2
    falloff = sampler.uniform(0, 0.5, B) * sampler.coin(0.6, B)
    vignette = 1 - falloff[:, None, None] * radius
    return (exposure[:, None] * balance)[..., None, None] * vignette[:, None]


def _sensor(x: Tensor, sampler: Sampler) -> Tensor:
    """Shot and read noise (Foi et al., "Poissonian-Gaussian noise modeling", 2008)."""
    B, _, H, W = x.shape
    shot = sampler.log_uniform(1e-5, 4e-3, B)[:, None, None, None]
    read = sampler.log_uniform(5e-4, 1.2e-2, B)[:, None, None, None]
    noise = sampler.normal(1, B, 3, H, W)
    # Half of the sensors denoise: what is left of the noise is in blotches.
    noise = torch.where(
        sampler.coin(0.5, B)[:, None, None, None],
        smooth(noise, torch.full((B,), 0.2, device=x.device)) * 1.7,
        noise,
    )
    deviation = (x * shot).add_(read.square()).clamp_(min=0).sqrt_()
    return x.addcmul(noise, deviation).clamp_(min=0)


def _develop(x: Tensor, sampler: Sampler) -> Tensor:
    """Tone curve, saturation and contrast; linear in, display-encoded in about [0,1] out."""
    B = len(x)
    # A shoulder that rolls highlights off, then the exponent 1 / 2.2 as a sum of roots.
    knee = sampler.uniform(0.05, 0.5, B)[:, None, None, None]
    x = x * (1 + knee) / (1 + knee * x)
    x.clamp_(1e-6, 1.5)
    root = x.sqrt()
    fourth = root.sqrt()
    # Least squares fit of x ** (1 / 2.2) on [0,1]; within 0.004.
    encoded = root.mul_(0.585).add_(fourth, alpha=0.783).sub_(fourth.sqrt_(), alpha=0.368)
    saturation = sampler.uniform(0.7, 1.25, B)[:, None, None, None]
    saturation = saturation * ~sampler.coin(0.03, B)[:, None, None, None]
    contrast = sampler.uniform(0.88, 1.18, B)[:, None, None, None]
    grey = encoded.mean(1, keepdim=True)
    encoded = torch.lerp(grey, encoded, saturation)
    lift = sampler.normal(0.02, B)[:, None, None, None]
    return encoded.sub_(0.45).mul_(contrast).add_(0.45 + lift)


def _rescale(x: Tensor, config: PhotometricConfig, sampler: Sampler) -> Tensor:
    """Some pictures were smaller once."""
    chosen = _chosen(config.rescale_fraction, len(x), sampler)
    if len(chosen):
        H, W = x.shape[2:]
        factor = float(sampler.uniform(0.4, 0.8, 1))
        small = F.interpolate(
            x[chosen], size=(max(8, int(H * factor)), max(8, int(W * factor))), mode='area'
        )
        x[chosen] = F.interpolate(small, size=(H, W), mode='bilinear')
    return x


def _sharpen(x: Tensor, config: PhotometricConfig, sampler: Sampler) -> Tensor:
    """The halo of a camera that sharpens too much."""
    chosen = _chosen(config.sharpen_fraction, len(x), sampler)
    if len(chosen):
        part = x[chosen]
        blurred = smooth(part, torch.full((len(chosen),), 0.25, device=x.device))
        amount = sampler.uniform(0.3, 1.5, len(chosen))[:, None, None, None]
        x[chosen] = part + amount * (part - blurred)
    return x
