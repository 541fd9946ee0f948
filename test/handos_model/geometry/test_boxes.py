"""Overlap against counted pixels."""

import numpy as np

from handos_model.geometry.boxes import cxcywh_to_xyxy, pairwise_iou

RNG = np.random.default_rng(0)


def test_box_iou() -> None:
    corners = RNG.uniform(0, 40, (2, 30, 2))
    boxes = np.concatenate([corners.min(0), corners.max(0)], 1).round()
    grid = np.zeros((30, 40, 40), bool)
    for mask, (x1, y1, x2, y2) in zip(grid, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    union = (grid[:, None] | grid[None]).sum((-1, -2))
    expected = (grid[:, None] & grid[None]).sum((-1, -2)) / np.maximum(union, 1)
    np.testing.assert_allclose(pairwise_iou(boxes, boxes), expected, atol=1e-9)
    assert pairwise_iou(np.zeros((0, 4)), boxes).shape == (0, 30)


def test_empty_boxes_overlap_nothing() -> None:
    boxes = np.array([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.2, 0.2]])
    corners = cxcywh_to_xyxy(boxes)
    np.testing.assert_allclose(pairwise_iou(corners, corners), np.diag([0.0, 0.0, 1.0]))
