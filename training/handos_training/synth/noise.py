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
        direction = torch.stack([ring * azimuth.cos(), height, ring * azimuth.sin()])
        # Golden-ratio steps: evenly spread values in an order unlike that of the directions.
        jitter = (index * 0.754877) % 1 * 2 - 1
        length = 2 * math.pi / wavelength_m * (1 + spread * jitter)
        stretched = direction * length / torch.tensor(stretch, dtype=torch.float64)[:, None]
        self.vectors = stretched.float()  # [3,M] radians per metre
        self.phases = (index * 2.399963).float()

    def __call__(self, position_m: Tensor) -> Tensor:
        """[P] at positions [P,3]."""
        return self._angles(position_m).sin_().sum(1).mul_(self.scale)

    def with_gradient(self, position_m: Tensor) -> tuple[Tensor, Tensor]:
        """The value [P], and its slope [P,3] per wavelength / 2 pi (about unit length)."""
        angles = self._angles(position_m)
        vectors = self.vectors.to(position_m.device) * (self.wavelength_m / (2 * math.pi))
        value = angles.sin().sum(1).mul_(self.scale)
        return value, angles.cos_() @ (vectors.T * self.scale)

    def _angles(self, position_m: Tensor) -> Tensor:
        return torch.addmm(
            self.phases.to(position_m.device), position_m, self.vectors.to(position_m.device)
        )


def visible_amplitude(wavelength_m: float | Tensor, footprint_m: Tensor) -> Tensor:
    """How much of a wave survives averaging over a pixel that is `footprint_m` wide."""
    return (-(2.2 * footprint_m / wavelength_m).square_()).exp_()
