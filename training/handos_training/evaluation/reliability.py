"""Whether scores mean what they say: a calibrated score is the chance that there is a hand."""

from __future__ import annotations

from typing import Any

import numpy as np


class Reliability:
    """How often a hand of a score is one."""

    EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.001)

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.right: list[bool] = []

    def add(self, score: float, right: bool) -> None:
        """Count a hand that was found, and whether it is one."""
        self.scores.append(score)
        self.right.append(right)

    def report(self) -> dict[str, Any]:
        """A row a bin of scores, and the expected calibration error over them."""
        scores, right = np.array(self.scores), np.array(self.right, dtype=float)
        rows, error = [], 0.0
        for low, high in zip(self.EDGES[:-1], self.EDGES[1:], strict=True):
            inside = (scores >= low) & (scores < high)
            if not inside.any():
                continue
            mean, share = float(scores[inside].mean()), float(right[inside].mean())
            error += float(inside.sum()) * abs(mean - share)
            rows.append({'scores': int(inside.sum()), 'mean': mean, 'are_hands': share})
        return {'bins': rows, 'expected_error': error / max(len(scores), 1)}
