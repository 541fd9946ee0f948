"""What is asked of decoded hands before they are placed: which are the same, how long they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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


def distinct_hands(joints_px: FloatArray, threshold: float) -> npt.NDArray[np.int64]:
    """Rows of hands [N,21,2], best first, that agree with no better one by more than `threshold`.

    Two hands that overlap, or even clasp, differ joint by joint, which boxes cannot see.
    """
    if len(joints_px) < 2:
        return np.arange(len(joints_px))
    similarity = joint_similarity(joints_px)
    kept: list[int] = []
    for row in range(len(joints_px)):
        if not (similarity[row, kept] > threshold).any():
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def whole_hands(boxes_xyxy: FloatArray, is_right: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rows of hands, best first, that are no part of a better one: boxes [N,4], sides [N].

    A part (fingers, the back) is drawn as a hand of its own, whose joints agree with nothing; its
    box lies over that of the whole and it has the same side, as a person's other hand has not. A
    box that is much smaller is somebody else's hand, farther away.
    """
    size = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    area = size.prod(1)
    smaller, larger = np.minimum(area[:, None], area), np.maximum(area[:, None], area)
    low = np.maximum(boxes_xyxy[:, None, :2], boxes_xyxy[:, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[:, 2:])
    shared = (high - low).clip(0).prod(-1)
    over = (shared > _PART_COVERED * smaller) & (smaller > _PART_SIZE * larger)
    over &= is_right[:, None] == is_right
    kept: list[int] = []
    for row in range(len(area)):
        if not over[row, kept].any():
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def hand_length(joints_m: FloatArray) -> FloatArray:
    """Wrist to the tip of the middle finger along the bones [N], metres, of joints [N,21,3]."""
    bones = np.diff(joints_m[:, _MIDDLE_FINGER], axis=1)
    length: FloatArray = np.linalg.norm(bones, axis=-1).sum(-1)
    return length
