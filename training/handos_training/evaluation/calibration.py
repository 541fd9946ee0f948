"""Scores that mean something: after calibration a score is the chance that there is a hand.

Platt scaling: logit -> slope * logit + offset, fitted by likelihood on photographs that training
never saw, and folded into the weights of the detector's last layer, so that nothing runs more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from handos_model.geometry.boxes import pairwise_iou
from handos_model.network.detectors.dfine import DFineDetector
from handos_training.data.sample import Sample
from handos_training.data.transform import letterbox
from handos_training.stages.targets import cxcywh_to_xyxy

Array = npt.NDArray[np.float64]
LOWEST_SCORE = 0.02  # what scores less never comes near a threshold
IS_A_HAND_IOU = 0.5
IS_A_DUPLICATE_IOU = 0.3  # of a hand that a surer query found: suppressed later, so not judged


class Platt(NamedTuple):
    """How a logit is corrected; slope 1 and offset 0 leave it."""

    slope: float
    offset: float


def fit_platt(logits: npt.ArrayLike, are_hands: npt.ArrayLike) -> Platt:
    """The correction of largest likelihood for logits [N] and bool [N].

    Raises ValueError unless there are both hands and others: else the best offset is infinite.
    """
    x, y = np.asarray(logits, np.float64), np.asarray(are_hands, bool)
    if y.all() or not y.any():
        raise ValueError(f'{len(y)} judged queries are all of one kind: nothing can be fitted')
    sign = np.where(y, 1.0, -1.0)

    def loss(values: Array) -> tuple[float, Array]:
        margin = sign * (values[0] * x + values[1])
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500)))
        return float(np.logaddexp(0, -margin).mean()), np.array([(slope * x).mean(), slope.mean()])

    best = minimize(loss, np.array([1.0, 0.0]), jac=True, method='BFGS').x
    return Platt(float(best[0]), float(best[1]))


@torch.no_grad()
def judged_logits(
    detector: DFineDetector, samples: Iterable[Sample], network_hw: tuple[int, int]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The logits [N] of a detector's queries and whether they found a hand, over whole images.

    Images whose hands are not all labelled are left out, and so are queries on a hand that a
    surer one found.
    """
    logits: list[float] = []
    hands: list[bool] = []
    for sample in samples:
        if not sample.all_hands_labelled:
            continue
        seen = letterbox(sample, network_hw)
        output = detector(seen.image[None].float() / 255)
        h, w = network_hw
        boxes = cxcywh_to_xyxy(output.boxes_cxcywh[0]) * torch.tensor([w, h, w, h]) - 0.5
        own = output.logits[0, :, detector.hand_label].double().numpy()
        overlap = pairwise_iou(boxes.numpy(), seen.hands.boxes_xyxy_px.numpy())
        free = np.ones(overlap.shape[1], bool)
        for query in np.argsort(-own):
            if own[query] < np.log(LOWEST_SCORE / (1 - LOWEST_SCORE)):
                break
            best = int(overlap[query].argmax()) if overlap.shape[1] else -1
            found = best >= 0 and overlap[query, best] >= IS_A_HAND_IOU and bool(free[best])
            if not found and (overlap[query, ~free] >= IS_A_DUPLICATE_IOU).any():
                continue
            if found:
                free[best] = False
            logits.append(float(own[query]))
            hands.append(found)
    return np.array(logits), np.array(hands, bool)


@torch.no_grad()
def correct_scores(detector: DFineDetector, platt: Platt) -> None:
    """Fold the correction into what the last layer's logit is a sum of: class and box quality."""
    model: Any = detector.model
    decoder = model.model.decoder
    last = decoder.eval_idx
    classes = decoder.class_embed[last]
    quality = decoder.lqe_layers[last].reg_conf.layers[-1]
    for layer in (classes, quality):
        layer.weight.mul_(platt.slope)
        layer.bias.mul_(platt.slope)
    classes.bias.add_(platt.offset)
