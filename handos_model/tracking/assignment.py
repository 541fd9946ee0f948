"""Optimal assignment by shortest augmenting paths (Jonker, Volgenant, Computing 38, 1987).

For the handful of hands of a frame; it spares a robot the 140 MB of a scientific library.
"""

from __future__ import annotations

import numpy as np

from handos_model.types import FloatArray


def assign(cost: FloatArray) -> tuple[list[int], list[int]]:
    """Rows and columns of the cheapest one-to-one matching of a finite cost matrix [R,C].

    min(R, C) pairs, rows ascending. Raises ValueError where a cost is not finite.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if not np.isfinite(cost).all():
        raise ValueError('costs must be finite')
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        pairs = sorted(zip(rows, columns, strict=True))
        return [r for r, _ in pairs], [c for _, c in pairs]
    R, C = cost.shape
    nearest = cost.argmin(1).tolist()
    if len(set(nearest)) == R:  # nobody competes: no matching is cheaper than every row's best
        return list(range(R)), nearest
    row_price, column_price = np.zeros(R), np.zeros(C)
    row_of = np.full(C, -1)  # the row that each column is matched with
    for start in range(R):
        shortest = np.full(C, np.inf)  # from `start` to each column, in reduced costs
        came_from = np.full(C, -1)  # row before each column on that path
        done = np.zeros(C, dtype=bool)
        row, length = start, 0.0
        visited = [start]
        while True:
            reduced = length + cost[row] - row_price[row] - column_price
            better = ~done & (reduced < shortest)
            shortest[better], came_from[better] = reduced[better], row
            column = int(np.where(done, np.inf, shortest).argmin())
            length = float(shortest[column])
            done[column] = True
            if row_of[column] < 0:
                break
            row = int(row_of[column])
            visited.append(row)
        matched = {int(row_of[c]): int(c) for c in np.flatnonzero(done) if row_of[c] >= 0}
        for r in visited:
            row_price[r] += length - (shortest[matched[r]] if r in matched else 0.0)
        column_price[done] -= length - shortest[done]
        while True:  # turn the path over
            row = int(came_from[column])
            row_of[column] = row
            if row == start:
                break
            column = matched[row]
    pairs = sorted((int(r), c) for c, r in enumerate(row_of) if r >= 0)
    return [r for r, _ in pairs], [c for _, c in pairs]
