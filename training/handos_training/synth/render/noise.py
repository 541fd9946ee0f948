"""Smooth solid noise as a sum of plane waves, which a matrix product evaluates."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class WaveNoise:
    """Unit-variance noise of about one wavelength; its gradient costs one more product.

    The directions are spread evenly over the sphere and the wavelengths by +-`spread`, so that a
    dozen waves show no repetition over some ten wavelengths.
    """

    def __init__(
        self,
        wavelength_m: float,
        waves: int = 10,
        spread: float = 0.3,
        stretch: tuple[float, float, float] = (1, 1, 1),
    ) -> None:
        self.wavelength_m = wavelength_m
        self.scale = math.sqrt(2 / waves)
        index = torch.arange(waves, dtype=torch.float64)
        height = (index + 0.5) / waves  # a hemisphere: opposite waves are the same
        azimuth = index * math.pi * (3 - math.sqrt(5))
        ring = (1 - height**2).sqrt()
        direction = torch.stack([ring * azimuth.cos(), height, ring * azimuth.sin()], 1)
        # Golden-ratio steps: evenly spread values in an order unlike that of the directions.
        jitter = (index * 0.754877) % 1 * 2 - 1
        length = 2 * math.pi / wavelength_m * (1 + spread * jitter)[:, None]
        stretched = direction * length / torch.tensor(stretch, dtype=torch.float64)
        self.vectors = stretched.float()  # [M,3] radians per metre
        self.phases = (index * 2.399963).float()[:, None]

    def __call__(self, position_m: Tensor) -> Tensor:
        """[P] at positions [3,P]."""
        return self._angles(position_m).sin_().sum(0).mul_(self.scale)

    def with_gradient(self, position_m: Tensor) -> tuple[Tensor, Tensor]:
        """The value [P], and its slope [3,P] per wavelength / 2 pi (about unit length)."""
        angles = self._angles(position_m)
        value = angles.sin().sum(0).mul_(self.scale)
        vectors = self.vectors.to(position_m.device) * (
            self.scale * self.wavelength_m / (2 * math.pi)
        )
        return value, vectors.T @ angles.cos_()

    def _angles(self, position_m: Tensor) -> Tensor:
        device = position_m.device
        return torch.addmm(self.phases.to(device), self.vectors.to(device), position_m)


def visible_amplitude(wavelength_m: float | Tensor, footprint_m: Tensor) -> Tensor:
    """How much of a wave survives averaging over a pixel that is `footprint_m` wide."""
    return (footprint_m * (2.2 / wavelength_m)).square_().neg_().exp_()
