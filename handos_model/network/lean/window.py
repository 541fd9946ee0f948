"""A part of the network's input, computed alone, in the coordinates of the whole.

Boxes, joints and everything that is learned about places are told in parts of the whole input. A
graph of a window keeps that: its constants are those of the whole, cut to the cells that are
there. A hand in it is told as if the rest of the input were empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from handos_model.network.detectors.protocol import SpatialShapes
from handos_model.weights.exported import WindowPlace


@dataclass(frozen=True)
class Window:
    """Cells of each feature level: `shapes` from `corners` (row, column) on, out of `whole`."""

    whole: SpatialShapes
    shapes: SpatialShapes
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def everything(cls, shapes: SpatialShapes) -> Window:
        """All cells of all levels."""
        return cls(shapes, shapes, tuple((0, 0) for _ in shapes))

    @classmethod
    def at(cls, whole: SpatialShapes, place: WindowPlace, size_hw: tuple[int, int]) -> Window:
        """Of `size_hw` pixels at `place`, both whole cells of every level."""
        (height, width), (top, left) = place.whole_hw, place.corner_px
        shapes, corners = [], []
        for h, w in whole:
            strides = np.array([height // h, width // w])
            cells = np.array([size_hw, (top, left)]) / strides
            assert (cells % 1 == 0).all(), 'a window ends between two cells'
            (rows, columns), (first_row, first_column) = cells.astype(int).tolist()
            shapes.append((rows, columns))
            corners.append((first_row, first_column))
        return cls(whole, tuple(shapes), tuple(corners))

    @property
    def is_part(self) -> bool:
        """Whether cells are left out."""
        return self.shapes != self.whole

    def cells(self, level: int) -> Tensor:
        """Numbers [h*w] of the window's cells among those of the whole level."""
        (h, w), (top, left), (_, width) = (
            self.shapes[level], self.corners[level], self.whole[level]
        )  # fmt: skip
        rows, columns = torch.arange(top, top + h), torch.arange(left, left + w)
        return (rows[:, None] * width + columns).flatten()

    def tokens(self) -> Tensor:
        """Numbers [L] of the window's cells among the tokens of all levels of the whole."""
        parts, start = [], 0
        for level, (height, width) in enumerate(self.whole):
            parts.append(start + self.cells(level))
            start += height * width
        return torch.cat(parts)
