"""Which instances are hands: score threshold and non-maximum suppression (numpy only)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from handos_model.geometry.boxes import cxcywh_to_xyxy, pairwise_iou
from handos_model.types import FloatArray


def select_instances(
    scores: FloatArray,
    boxes_cxcywh: FloatArray,
    score_threshold: float = 0.1,
    nms_threshold: float = 0.9,
    max_hands: int | None = None,
) -> npt.NDArray[np.int64]:
    """Indices of the kept instances of one image, best first.

    `scores` [Q], `boxes_cxcywh` [Q,4] in any one unit. A box that overlaps a better one by more
    than `nms_threshold` (IoU) is dropped. The defaults are the paper's (section 4.1); the loose
    0.9 relies on a detector that already suppresses its duplicates.
    """
    order = np.flatnonzero(scores >= score_threshold)
    order = order[np.argsort(-scores[order], kind='stable')]
    boxes_xyxy = cxcywh_to_xyxy(boxes_cxcywh)
    kept: list[int] = []
    while len(order) and (max_hands is None or len(kept) < max_hands):
        best, order = order[:1], order[1:]
        kept.append(int(best[0]))
        if len(order) and len(kept) != max_hands:
            overlaps = pairwise_iou(boxes_xyxy[best], boxes_xyxy[order])[0]
            order = order[~(overlaps > nms_threshold)]
    return np.array(kept, dtype=np.int64)
