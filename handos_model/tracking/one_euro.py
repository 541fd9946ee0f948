"""The One-Euro filter (Casiez, Roussel, Vogel, CHI 2012) with one cutoff for a whole array.

The cutoff follows the speed of the array, so that a still hand is smoothed and a fast one is not
held back. All elements share it: a mesh is moved as one and keeps its shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handos_model.types import FloatArray


@dataclass(frozen=True)
class OneEuroConfig:
    """`beta` is in Hz per unit of speed (of the filtered quantity per second)."""

    min_cutoff_hz: float
    beta: float
    derivative_cutoff_hz: float = 1.0

    def __post_init__(self) -> None:
        if self.min_cutoff_hz <= 0 or self.beta < 0 or self.derivative_cutoff_hz <= 0:
            raise ValueError(f'cutoffs must be positive and beta not negative: {self}')


class OneEuro:
    """Filters points [..., D] sample by sample; speed is the median over points.

    `delay_s` is the time constant that the last sample was filtered with: what a steady motion
    at the present speed lags behind.
    """

    def __init__(self, config: OneEuroConfig, value: FloatArray) -> None:
        self.config = config
        self.value = np.array(value, dtype=np.float64)
        self.raw = self.value
        self.velocity = np.zeros_like(self.value)
        self.delay_s = 0.0

    def update(self, value: FloatArray, elapsed_s: float, unit: float = 1.0) -> FloatArray:
        """Filter the sample that came `elapsed_s` > 0 after the last one; `beta` is per `unit`."""
        slow = _smoothing(self.config.derivative_cutoff_hz, elapsed_s)
        self.velocity += slow * ((value - self.raw) / elapsed_s - self.velocity)
        squares = (self.velocity * self.velocity).sum(-1).reshape(-1)
        speed = _median(squares) ** 0.5 / unit
        cutoff_hz = self.config.min_cutoff_hz + self.config.beta * speed
        alpha = _smoothing(cutoff_hz, elapsed_s)
        self.value = self.value + alpha * (value - self.value)
        self.raw = np.array(value, dtype=np.float64)
        self.delay_s = elapsed_s * (1 - alpha) / alpha
        return self.value


def _median(values: FloatArray) -> float:
    """The upper median of [N], at a fifth of np.median's time."""
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])


def _smoothing(cutoff_hz: float, elapsed_s: float) -> float:
    """Weight of the new sample in an exponential filter of this cutoff."""
    return 1.0 / (1.0 + 1.0 / (2.0 * np.pi * cutoff_hz * elapsed_s))
