"""Selection against a plain loop, and at its edges."""

import numpy as np
import pytest

from handos_model.selection import select_instances


def plain_selection(scores, boxes, score_threshold, nms_threshold, max_hands):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if scores[i] < score_threshold or len(kept) == max_hands:
            break
        if all(plain_iou(boxes[i], boxes[j]) <= nms_threshold for j in kept):
            kept.append(i)
    return kept


def plain_iou(a, b):
    overlap = 1.0
    for axis in (0, 1):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        overlap *= max(high - low, 0)
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap)


@pytest.mark.parametrize('nms_threshold', [0.3, 0.5, 0.9])
def test_selection_equals_the_plain_loop(nms_threshold):
    rng = np.random.default_rng(0)
    dropped = 0
    for _ in range(50):
        Q = int(rng.integers(1, 30))
        scores = rng.choice([0.05, 0.1, 0.3, 0.7, 0.9], Q)  # ties on purpose
        boxes = np.concatenate([rng.uniform(0.4, 0.6, (Q, 2)), rng.uniform(0.2, 0.4, (Q, 2))], 1)
        expected = plain_selection(scores, boxes, 0.1, nms_threshold, 5)
        chosen = select_instances(scores, boxes, 0.1, nms_threshold, max_hands=5)
        assert chosen.tolist() == expected
        dropped += len(expected) < min(5, int((scores >= 0.1).sum()))
    assert dropped or nms_threshold == 0.9


def test_defaults_are_the_papers():
    scores = np.array([0.1, 0.0999, 0.8, 0.7, 0.6])
    heights = [0.1, 0.1, 0.2, 0.19, 0.17]  # IoU of the last two with the third: 0.95 and 0.85
    boxes = np.array([[0.5, 0.5, 0.2, height] for height in heights])
    assert select_instances(scores, boxes).tolist() == [2, 4, 0]


def test_nothing_above_the_threshold_is_an_empty_selection():
    chosen = select_instances(np.full(3, 0.05), np.full((3, 4), 0.5))
    assert chosen.shape == (0,) and chosen.dtype == np.int64
    assert select_instances(np.zeros(0), np.zeros((0, 4))).shape == (0,)
