"""Pictures side by side, for sheets that a person looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def tiled(cells: Sequence[Image], columns: int) -> Image:
    """Images of one size [H,W,3], row by row: [rows H, columns W, 3]; empty cells are black."""
    padded = [*cells, *[np.zeros_like(cells[0])] * (-len(cells) % columns)]
    rows = [np.concatenate(padded[i : i + columns], 1) for i in range(0, len(padded), columns)]
    return np.concatenate(rows)
