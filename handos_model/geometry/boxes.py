"""Boxes in an image, in any one unit."""

from __future__ import annotations

import numpy as np

from handos_model.types import FloatArray


def cxcywh_to_xyxy(boxes_cxcywh: FloatArray) -> FloatArray:
    """Centres and sizes [...,4] to corners [...,4]."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def pairwise_iou(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of boxes [N,4] and [M,4] -> [N,M]; empty boxes overlap nothing."""
    shared = pairwise_overlap(a_xyxy, b_xyxy)
    union = box_area(a_xyxy)[:, None] + box_area(b_xyxy) - shared
    result: FloatArray = shared / np.maximum(union, 1e-12)
    return result


def pairwise_overlap(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Area that boxes [N,4] and [M,4] share -> [N,M], in square units."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared: FloatArray = np.clip(high - low, 0, None).prod(-1)
    return shared


def box_area(boxes_xyxy: FloatArray) -> FloatArray:
    """Area [...] of boxes [...,4], in square units."""
    area: FloatArray = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(-1)
    return area
