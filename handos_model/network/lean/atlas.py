"""Deformable sampling of all levels by one GridSample: the levels side by side in one map.

Between the levels lie cells of zero, and a location is kept within one cell of its level, so that
each level ends in zeros as it does alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handos_model.network.lean.window import Window


class Atlas(nn.Module):
    """Where the levels lie, and grid coordinates for `heads` x levels x `points` a token.

    Columns of coordinates run over heads, levels, points and (x, y), as attention layers emit
    them. The first level is on the left, the others below each other on its right.
    """

    rows: Tensor  # [A] row of [tokens, zero] for each cell
    slope: Tensor  # [2,columns]: grid = points (x, y) normalised to the image @ slope + offset
    offset: Tensor  # [columns]
    low: Tensor  # [columns]
    high: Tensor  # [columns]

    def __init__(self, window: Window, heads: int, points: int) -> None:
        super().__init__()
        shapes = window.shapes
        self.heads, self.columns = heads, heads * len(shapes) * points * 2
        total = sum(h * w for h, w in shapes)
        corners, below = [(0, 0)], 0
        for h, _ in shapes[1:]:
            corners.append((below, shapes[0][1] + 1))
            below += h + 1
        self.height = max(shapes[0][0], below - 1)
        self.width = shapes[0][1] + max((1 + w for _, w in shapes[1:]), default=0)
        rows = torch.full((self.height, self.width), total)  # where nothing is: the row of zeros
        start, scales, offsets, lows, highs = 0, [], [], [], []
        size = torch.tensor([self.width, self.height]).double()
        levels = zip(shapes, corners, window.whole, window.corners, strict=True)
        for (h, w), (top, left), whole_hw, (first_row, first_column) in levels:
            rows[top : top + h, left : left + w] = torch.arange(start, start + h * w).view(h, w)
            start += h * w
            corner, extent = torch.tensor([left, top]), torch.tensor([w, h])
            before = torch.tensor([first_column, first_row])  # cells of the level left out
            scales.append(2 * torch.tensor(whole_hw[::-1]) / size)
            offsets.append(2 * (corner - before) / size - 1)
            lows.append((2 * corner - 1) / size - 1)
            highs.append((2 * (corner + extent) + 1) / size - 1)

        def columns(of_levels: list[Tensor]) -> Tensor:
            levels = torch.stack(of_levels)[None, :, None].expand(heads, -1, points, -1)
            return levels.reshape(-1).float()

        slope = torch.zeros(self.columns // 2, 2, 2)
        slope[:, 0, 0], slope[:, 1, 1] = columns(scales).view(-1, 2).unbind(-1)
        for name, value in (
            ('rows', rows.flatten()),
            ('slope', slope.permute(1, 0, 2).reshape(2, -1)),
            ('offset', columns(offsets)),
            ('low', columns(lows)),
            ('high', columns(highs)),
        ):
            self.register_buffer(name, value, persistent=False)

    def spread(self, tokens: Tensor) -> Tensor:
        """Rows of the cells [A,C] from tokens [L,C]."""
        zero = tokens.new_zeros(1, tokens.shape[1])
        return torch.cat([tokens, zero]).index_select(0, self.rows)

    def sample(self, values: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
        """Values [heads*dh,A], grid [T,columns], weights [T,columns/2] -> [heads*dh,T]."""
        T, heads = grid.shape[0], self.heads
        cells = values.view(heads, -1, self.height, self.width)
        grid = torch.minimum(torch.maximum(grid, self.low), self.high)
        grid = grid.view(T, heads, -1).transpose(0, 1).reshape(heads, T, -1, 2)
        weights = weights.view(T, heads, -1).transpose(0, 1).unsqueeze(1)
        sampled = F.grid_sample(cells, grid, padding_mode='zeros', align_corners=False)
        return (sampled * weights).sum(-1).view(-1, T)
