"""Which predicted hand answers for which labelled hand.

The rule, since the papers leave theirs unstated: pairs are chosen to make the sum of IoU of boxes
largest, one prediction a label, and a pair below `MIN_IOU` is a miss. With one label an image that
is simply the prediction of largest IoU. Neither the true side nor the true box helps the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from handos_model.geometry.boxes import pairwise_iou

MIN_IOU = 0.1


def match_boxes(
    labels_xyxy: npt.ArrayLike, predictions_xyxy: npt.ArrayLike, min_iou: float = MIN_IOU
) -> npt.NDArray[np.int64]:
    """For each label [G,4] the index of its prediction [P,4], or -1 for a missed hand."""
    boxes = (np.asarray(b, np.float64).reshape(-1, 4) for b in (labels_xyxy, predictions_xyxy))
    iou = pairwise_iou(*boxes)
    matches = np.full(iou.shape[0], -1, dtype=np.int64)
    iou = np.where(iou >= min_iou, iou, 0.0)
    rows, columns = linear_sum_assignment(-iou)
    good = iou[rows, columns] > 0
    matches[rows[good]] = columns[good]
    return matches


@dataclass
class DetectionCount:
    """Hits, misses and false alarms at one IoU threshold, summed over images.

    Where not every hand of an image is labelled, nobody knows what is a false alarm, so precision
    counts completely labelled images only; it is NaN where there is none.
    """

    iou_threshold: float = 0.5
    labels: int = 0
    hits: int = 0
    predictions: int = 0  # in completely labelled images
    right_predictions: int = 0  # of these

    def add(
        self, labels_xyxy: npt.ArrayLike, predictions_xyxy: npt.ArrayLike, *, complete: bool
    ) -> None:
        """Count one image."""
        matches = match_boxes(labels_xyxy, predictions_xyxy, self.iou_threshold)
        hits = int((matches >= 0).sum())
        self.labels += len(matches)
        self.hits += hits
        if complete:
            self.predictions += len(np.asarray(predictions_xyxy).reshape(-1, 4))
            self.right_predictions += hits

    @property
    def recall(self) -> float:
        return self.hits / self.labels if self.labels else float('nan')

    @property
    def precision(self) -> float:
        return self.right_predictions / self.predictions if self.predictions else float('nan')
