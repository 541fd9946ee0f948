"""Assignment against a reference, on square, wide, tall, tied and empty problems."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from handos_model.tracking.assignment import assign


@pytest.mark.parametrize('shape', [(1, 1), (3, 3), (4, 9), (9, 4), (16, 16), (0, 3), (3, 0)])
def test_the_cost_is_the_least(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for trial in range(50):
        cost = rng.normal(size=shape) if trial % 2 else rng.integers(0, 3, shape).astype(float)
        rows, columns = assign(cost)
        assert rows == sorted(set(rows)) and len(set(columns)) == len(columns)
        assert len(rows) == min(shape)
        best = cost[linear_sum_assignment(cost)].sum()
        assert cost[rows, columns].sum() == pytest.approx(best)


def test_forbidding_costs_keep_their_precision() -> None:
    cost = np.array([[0.3, 1e6], [0.1, 1e6]])
    rows, columns = assign(cost)
    assert cost[rows, columns].min() == 0.1 or cost[rows, columns].sum() == 1e6 + 0.1


def test_a_cost_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match='finite'):
        assign(np.array([[np.nan]]))
