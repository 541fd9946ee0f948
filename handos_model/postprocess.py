"""What is asked of decoded hands before they are placed: which are the same, how long they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from handos_model.geometry.boxes import box_area, pairwise_overlap
from handos_model.types import FloatArray

_TOLERANCE = 0.1  # of a hand's extent: joints so far apart count exp(-1/2)
_PART_COVERED = 0.5  # of the smaller box
_PART_SIZE = 0.2  # of the area of the larger box
_MIDDLE_FINGER = [0, 9, 10, 11, 12]


def joint_similarity(joints_px: FloatArray) -> FloatArray:
    """How much N hands [N,21,2] agree joint by joint [N,N], 1 for equal ones.

    COCO's object keypoint similarity with one tolerance for all joints, in units of the smaller
    hand's extent (the geometric mean of its joints' width and height).
    """
    extent = np.sqrt(np.ptp(joints_px, axis=1).clip(1.0).prod(-1))
    extent = np.minimum(extent[:, None], extent[None])
    squares = ((joints_px[:, None] - joints_px[None]) ** 2).sum(-1)  # [N,N,21]
    tolerance = 2 * (_TOLERANCE * extent[..., None]) ** 2
    similarity: FloatArray = np.exp(-squares / tolerance).mean(-1)
    return similarity


def distinct_hands(
    joints_px: FloatArray,
    boxes_xyxy_px: FloatArray,
    is_right: npt.NDArray[np.bool_],
    threshold: float,
) -> npt.NDArray[np.int64]:
    """Rows of hands that no better one shows already: joints [N,21,2], boxes [N,4], sides [N].

    Hands come best first. One is dropped if it is a part of a better one (`is_part`), or if its
    joints agree with those of a better one by more than `threshold`: two hands that overlap, or
    even clasp, differ joint by joint, which boxes cannot see.
    """
    if len(joints_px) < 2:
        return np.arange(len(joints_px))
    shown_before = joint_similarity(joints_px) > threshold
    shown_before |= is_part(boxes_xyxy_px, is_right)
    kept: list[int] = []
    for row in range(len(joints_px)):
        if not shown_before[row, kept].any():
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def is_part(boxes_xyxy: FloatArray, is_right: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which of N hands lie over which as a part of it [N,N]: boxes [N,4], sides [N]; symmetric.

    A part (fingers, the back) is drawn as a hand of its own, whose joints agree with nothing. It
    has the side of the whole, as a person's other hand across it has not. Boxes of too different
    size are hands of two people, one of them farther away.
    """
    area = box_area(boxes_xyxy)
    smaller, larger = np.minimum(area[:, None], area), np.maximum(area[:, None], area)
    covered = pairwise_overlap(boxes_xyxy, boxes_xyxy) > _PART_COVERED * smaller
    result: npt.NDArray[np.bool_] = (
        covered & (smaller > _PART_SIZE * larger) & (is_right[:, None] == is_right)
    )
    return result


def lies_over(boxes_xyxy: FloatArray, known_xyxy: FloatArray) -> npt.NDArray[np.bool_]:
    """Which boxes [N,4] and one of the known [M,4] share most of the smaller of the two -> [N]."""
    smaller = np.minimum(box_area(boxes_xyxy)[:, None], box_area(known_xyxy))
    covered = pairwise_overlap(boxes_xyxy, known_xyxy) > _PART_COVERED * smaller
    return np.asarray(covered.any(1))


def hand_length(joints_m: FloatArray) -> FloatArray:
    """Wrist to the tip of the middle finger along the bones [N], metres, of joints [N,21,3]."""
    bones = np.diff(joints_m[:, _MIDDLE_FINGER], axis=1)
    length: FloatArray = np.linalg.norm(bones, axis=-1).sum(-1)
    return length
