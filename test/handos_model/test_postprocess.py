"""Which of several decoded hands are one."""

import numpy as np
import pytest

from handos_model.postprocess import distinct_hands

WHOLE = [100.0, 100.0, 200.0, 300.0]
FINGERS = [105.0, 90.0, 190.0, 190.0]
FAR = [120.0, 120.0, 150.0, 160.0]
BESIDE = [190.0, 100.0, 290.0, 300.0]


def rows(*hands: tuple[list[float], str]) -> list[int]:
    """Rows that are left of boxes and sides; the joints of every hand are its own."""
    boxes = np.array([box for box, _ in hands]).reshape(-1, 4)
    rng = np.random.default_rng(0)
    joints = boxes[:, None, :2] + rng.random((len(boxes), 21, 2)) * (
        boxes[:, None, 2:] - boxes[:, None, :2]
    )
    return distinct_hands(
        joints, boxes, np.array([side == 'right' for _, side in hands], bool), 0.5
    ).tolist()


@pytest.mark.parametrize('side', ['left', 'right'])
def test_a_part_of_a_hand_is_no_second_hand(side: str) -> None:
    assert rows((WHOLE, side), (FINGERS, side)) == [0]
    assert rows((FINGERS, side), (BESIDE, side), (WHOLE, side)) == [0, 1]


def test_the_other_hand_across_it_stays() -> None:
    assert rows((WHOLE, 'right'), (FINGERS, 'left')) == [0, 1]


def test_hands_beside_and_far_behind_stay() -> None:
    assert rows((WHOLE, 'right'), (BESIDE, 'right'), (FAR, 'right')) == [0, 1, 2]


def test_what_only_a_dropped_part_covers_stays() -> None:
    below = [100.0, 160.0, 200.0, 420.0]
    reaching = [110.0, 290.0, 190.0, 410.0]
    assert rows((WHOLE, 'right'), (below, 'right'), (reaching, 'right')) == [0, 2]


def test_no_hand_is_none_left() -> None:
    assert rows() == []


def test_hands_whose_joints_agree_are_one_whatever_their_sides() -> None:
    joints = np.random.default_rng(0).random((1, 21, 2)) * 100
    boxes = np.array([WHOLE, FAR])
    assert distinct_hands(
        np.concatenate([joints, joints + 1]), boxes, np.array([True, False]), 0.5
    ).tolist() == [0]
