"""Scores that mean something: after calibration a score is the chance that there is a hand.

A logistic regression on what a hand's tokens and its query say (`detectors/scores.py`), fitted by
likelihood on photographs that training never saw; its three numbers go into `config.json`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from handos_model.config import ScoreConfig
from handos_model.geometry.boxes import pairwise_iou
from handos_model.network.detectors.dfine import DFineDetector
from handos_model.network.detectors.scores import evidence
from handos_training.data.sample import Sample
from handos_training.data.transform import letterbox
from handos_training.stages.targets import cxcywh_to_xyxy

Array = npt.NDArray[np.float64]
LOWEST_LOGIT = -4.0  # what says less never comes near a threshold
IS_A_HAND_IOU = 0.5
IS_A_DUPLICATE_IOU = 0.3  # of a hand that a surer query found: suppressed later, so not judged


def fit_score(
    told: npt.ArrayLike, are_hands: npt.ArrayLike, weights: npt.ArrayLike = 1.0
) -> ScoreConfig:
    """The score of largest likelihood for `told` [N,2] (tokens, queries) and bool [N].

    `weights` [N] or one number say how much each counts.
    Raises ValueError unless there are both hands and others: else the best offset is infinite.
    """
    x, y = np.asarray(told, np.float64), np.asarray(are_hands, bool)
    share = np.broadcast_to(np.asarray(weights, np.float64), y.shape)
    share = share / share.sum()
    if y.all() or not y.any():
        raise ValueError(f'{len(y)} judged queries are all of one kind: nothing can be fitted')
    x = np.column_stack([x, np.ones(len(x))])
    sign = np.where(y, 1.0, -1.0)

    def loss(values: Array) -> tuple[float, Array]:
        margin = sign * (x @ values)
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500)))
        return float(share @ np.logaddexp(0, -margin)), (share * slope) @ x

    bounds = [(1e-3, None), (0.0, None), (None, None)]
    best = minimize(loss, np.array([1.0, 0.0, 0.0]), jac=True, method='L-BFGS-B', bounds=bounds).x
    return ScoreConfig(*(round(float(value), 4) for value in best))


@torch.no_grad()
def judged_evidence(
    detector: DFineDetector, samples: Iterable[Sample], network_hw: tuple[int, int]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The evidence [N,2] for a detector's queries and whether they found a hand, of whole images.

    Where not all hands are labelled only queries that found one are judged; nowhere are those on a
    hand that a surer one found.
    """
    rows: list[list[float]] = []
    hands: list[bool] = []
    for sample in samples:
        seen = letterbox(sample, network_hw)
        output = detector(seen.image[None].float() / 255)
        assert output.token_logits is not None
        logits, token_logits = (
            part[..., detector.hand_label] for part in (output.logits, output.token_logits)
        )
        tokens, queries = evidence(token_logits, logits, output.boxes_cxcywh)
        told = torch.stack([tokens[0], queries[0]], dim=1).double().numpy()  # [Q,2]
        h, w = network_hw
        boxes = cxcywh_to_xyxy(output.boxes_cxcywh[0]) * torch.tensor([w, h, w, h]) - 0.5
        overlap = pairwise_iou(boxes.numpy(), seen.hands.boxes_xyxy_px.numpy())
        free = np.ones(overlap.shape[1], bool)
        for query in np.argsort(-told.sum(1)):
            if told[query].sum() < LOWEST_LOGIT:
                break
            best = int(overlap[query].argmax()) if overlap.shape[1] else -1
            found = best >= 0 and overlap[query, best] >= IS_A_HAND_IOU and bool(free[best])
            unknown = not sample.all_hands_labelled
            if not found and (unknown or (overlap[query, ~free] >= IS_A_DUPLICATE_IOU).any()):
                continue
            if found:
                free[best] = False
            rows.append(told[query].tolist())
            hands.append(found)
    return np.array(rows).reshape(-1, 2), np.array(hands, bool)
