"""A score that is the chance of a hand has no error; one that is not has the difference."""

from __future__ import annotations

import pytest

from handos_training.evaluation.reliability import Reliability


def counted(score: float, right: int, wrong: int) -> Reliability:
    found = Reliability()
    for _ in range(right):
        found.add(score, True)
    for _ in range(wrong):
        found.add(score, False)
    return found


def test_calibrated_scores_have_no_error() -> None:
    report = counted(0.75, 3, 1).report()
    assert report['expected_error'] == pytest.approx(0)
    assert report['bins'] == [{'scores': 4, 'mean': 0.75, 'are_hands': 0.75}]


def test_a_score_that_promises_too_much() -> None:
    found = counted(1.0, 1, 1)  # a full score falls into the last bin
    found.add(0.15, True)
    report = found.report()
    assert [row['scores'] for row in report['bins']] == [1, 2]
    assert report['expected_error'] == pytest.approx((0.85 + 2 * 0.5) / 3)


def test_nothing_found() -> None:
    assert Reliability().report() == {'bins': [], 'expected_error': 0.0}
