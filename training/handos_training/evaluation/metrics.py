"""The numbers of the field, as their official scripts define them (numpy).

Points are [..., N, 3] in metres or [..., N, 2] in pixels. FreiHAND's and HO3D's alignment solves
an *orthogonal* Procrustes problem, so it lets reflections pass: a mirrored hand scores zero. Every
aligned metric therefore takes `reflection`, and reports show both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Array = npt.NDArray[np.float64]
EPSILON = 1e-8  # added to norms by the FreiHAND script; keeps an all-zero prediction finite


@dataclass(frozen=True)
class Similarity:
    """x -> scale * (x - source_centre) R^T + target_centre."""

    rotation: Array  # [...,3,3], orthogonal; det -1 where a reflection was let pass
    scale: Array  # [...]
    source_centre: Array  # [...,1,3]
    target_centre: Array  # [...,1,3]

    def __call__(self, points: npt.ArrayLike) -> Array:
        offsets = np.asarray(points, np.float64) - self.source_centre
        rotated = offsets @ np.swapaxes(self.rotation, -1, -2)
        return rotated * self.scale[..., None, None] + self.target_centre


def procrustes(source: npt.ArrayLike, target: npt.ArrayLike, *, reflection: bool) -> Similarity:
    """The similarity that takes `source` closest to `target` (least squares), each [...,N,3].

    With `reflection` this is `align_w_scale` of the FreiHAND and HO3D scripts (Schoenemann 1966);
    without, the rotation is proper (Umeyama 1991).
    """
    a, b = np.asarray(target, np.float64), np.asarray(source, np.float64)
    centre_a, centre_b = a.mean(-2, keepdims=True), b.mean(-2, keepdims=True)
    a, b = a - centre_a, b - centre_b
    norm_a = np.linalg.norm(a, axis=(-2, -1)) + EPSILON
    norm_b = np.linalg.norm(b, axis=(-2, -1)) + EPSILON
    cross = np.swapaxes(a, -1, -2) @ b / (norm_a * norm_b)[..., None, None]
    u, singular, vt = np.linalg.svd(cross)
    signs = np.ones_like(singular)
    if not reflection:
        signs[..., 2] = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    rotation = (u * signs[..., None, :]) @ vt
    scale = (singular * signs).sum(-1) * norm_a / norm_b
    return Similarity(rotation, scale, centre_b, centre_a)


def scale_translation(
    source: npt.ArrayLike, target: npt.ArrayLike, *, wrist: int = 0, middle_mcp: int = 9
) -> Array:
    """HO3D's second alignment: the same wrist and the same wrist-to-middle-MCP length."""
    a, b = np.asarray(target, np.float64), np.asarray(source, np.float64)
    length_a = np.linalg.norm(a[..., middle_mcp, :] - a[..., wrist, :], axis=-1)
    length_b = np.linalg.norm(b[..., middle_mcp, :] - b[..., wrist, :], axis=-1)
    scale = length_a / np.where(length_b > 0, length_b, 1.0)
    offsets = b - b[..., wrist : wrist + 1, :]
    return np.asarray(offsets * scale[..., None, None] + a[..., wrist : wrist + 1, :])


def distances(prediction: npt.ArrayLike, target: npt.ArrayLike) -> Array:
    """Euclidean distance of each point, [...,N]."""
    difference = np.asarray(prediction, np.float64) - np.asarray(target, np.float64)
    return np.asarray(np.linalg.norm(difference, axis=-1))


def root_relative_distances(
    prediction: npt.ArrayLike, target: npt.ArrayLike, root: int = 0
) -> Array:
    """Distances after both roots are moved to the origin (DexYCB: root = wrist)."""
    p, t = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    return distances(p - p[..., root : root + 1, :], t - t[..., root : root + 1, :])


def aligned_distances(
    prediction: npt.ArrayLike, target: npt.ArrayLike, *, reflection: bool
) -> Array:
    """Distances after Procrustes alignment: PA-MPJPE and PA-MPVPE are their mean."""
    similarity = procrustes(prediction, target, reflection=reflection)
    return distances(similarity(prediction), target)


def auc(errors_m: npt.ArrayLike, maximum_m: float = 0.05, steps: int = 100) -> float:
    """Area under the share-of-points-within-threshold curve, 0 to `maximum_m`, over [B,N] errors.

    The share is taken a point and then averaged over points, as FreiHAND's script does; with the
    same B for every point that is the mean over all.
    """
    errors = np.sort(np.asarray(errors_m, np.float64).ravel())
    if not len(errors):
        return float('nan')
    thresholds = np.linspace(0.0, maximum_m, steps)
    share = np.searchsorted(errors, thresholds, side='right') / len(errors)
    area = ((share[1:] + share[:-1]) / 2 * np.diff(thresholds)).sum()
    return float(area / maximum_m)


def f_scores(
    prediction_m: npt.ArrayLike,
    target_m: npt.ArrayLike,
    thresholds_m: Sequence[float] = (0.005, 0.015),
) -> Array:
    """F-score of one mesh [V,3] against another: nearest neighbours both ways, strictly closer."""
    p, t = np.asarray(prediction_m, np.float64), np.asarray(target_m, np.float64)
    to_target = np.asarray(cKDTree(t).query(p)[0])
    to_prediction = np.asarray(cKDTree(p).query(t)[0])
    scores = []
    for threshold in thresholds_m:
        precision = float(np.mean(to_target < threshold))
        recall = float(np.mean(to_prediction < threshold))
        total = precision + recall
        scores.append(2 * precision * recall / total if total > 0 else 0.0)
    return np.array(scores)


def pck(
    errors_px: npt.ArrayLike,
    labelled: npt.ArrayLike,
    box_sides_px: npt.ArrayLike,
    thresholds: Sequence[float] = (0.05, 0.1, 0.15),
) -> Array:
    """HInt's PCK, one value a threshold: a joint, then the unweighted mean over joints.

    errors_px [B,J] (infinite for a missed hand), labelled [B,J] bool, box_sides_px [B] the longer
    side of the unexpanded box. Joints that nobody labelled are left out of the mean.
    """
    relative = np.asarray(errors_px, np.float64) / np.asarray(box_sides_px, np.float64)[:, None]
    known = np.asarray(labelled, bool)
    count = known.sum(0)
    used = count > 0
    if not used.any():
        return np.full(len(thresholds), np.nan)
    correct = [((relative <= threshold) & known).sum(0)[used] for threshold in thresholds]
    return np.array([(c / count[used]).mean() for c in correct])


def average_precision(
    scores: npt.ArrayLike,
    iou: Sequence[Array],
    image_of_score: npt.ArrayLike,
    thresholds: Sequence[float] = tuple(np.arange(0.5, 1.0, 0.05).round(2)),
) -> float:
    """COCO's box AP of one class: 101 recall points, the mean over IoU 0.50 to 0.95.

    `scores` [P] of all predictions, `iou[i]` [G_i,P_i] of image i's labels and its predictions in
    the order that they have in `scores`, `image_of_score` [P]. Best first, each prediction takes
    the free label that it overlaps most. NaN where nothing is labelled.
    """
    scores, images = np.asarray(scores, np.float64), np.asarray(image_of_score, np.int64)
    labels = sum(len(overlap) for overlap in iou)
    if not labels:
        return float('nan')
    column = np.zeros(len(scores), np.int64)  # of each prediction among those of its image
    for image in np.unique(images):
        column[images == image] = np.arange((images == image).sum())
    order = np.argsort(-scores, kind='stable')
    values = []
    for threshold in thresholds:
        free = [np.ones(len(overlap), bool) for overlap in iou]
        hits = np.zeros(len(scores))
        for rank, prediction in enumerate(order):
            image = images[prediction]
            overlap = np.where(free[image], iou[image][:, column[prediction]], -1.0)
            if len(overlap) and overlap.max() >= threshold:
                free[image][overlap.argmax()] = False
                hits[rank] = 1
        found = np.cumsum(hits)
        precision = found / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or more
        at = np.searchsorted(found / labels, np.linspace(0, 1, 101), side='left')
        values.append(np.append(precision, 0.0)[np.minimum(at, len(precision))].mean())
    return float(np.mean(values))


def acceleration_errors(
    prediction_m: npt.ArrayLike, target_m: npt.ArrayLike, present: npt.ArrayLike
) -> Array:
    """Jitter: |second difference of prediction - that of truth|, metres a frame squared.

    prediction_m, target_m [T,J,3] of one sequence, present [T] bool; only windows of three present
    frames count. Returns [windows, J]; multiply by the frame rate squared for m/s^2.
    """
    error = np.asarray(prediction_m, np.float64) - np.asarray(target_m, np.float64)
    known = np.asarray(present, bool)
    second_difference = error[2:] - 2 * error[1:-1] + error[:-2]
    window = known[2:] & known[1:-1] & known[:-2]
    return np.asarray(np.linalg.norm(second_difference[window], axis=-1))
