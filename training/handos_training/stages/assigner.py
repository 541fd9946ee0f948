"""SimOTA: which of the detector's queries are trained as which hand (paper, section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from handos_training.stages.targets import cxcywh_to_xyxy, iou_and_giou


class Assignment(NamedTuple):
    """P positive queries, ordered by image and query."""

    image_index: Tensor  # [P] int64
    query_index: Tensor  # [P] int64
    hand_index: Tensor  # [P] int64, into the hands of the whole batch
    iou: Tensor  # [P]


@torch.no_grad()
def assign(
    scores: Tensor,
    boxes_cxcywh: Tensor,
    hand_boxes_cxcywh: Tensor,
    hand_image_index: Tensor,
    max_queries: int = 10,
) -> Assignment:
    """Match queries to the hands of a batch.

    scores [B,Q] in [0,1]; boxes [B,Q,4] and hand boxes [N,4] normalised; `hand_image_index` [N]
    is sorted. The cost of query i for hand j is BCE(S_i, 1) - log IoU(B_i, B_j). Hand j takes the
    K_j queries of the lowest cost, K_j = the sum of its `max_queries` highest IoUs, rounded down,
    at least 1. A query that several hands want goes to the one of the lowest cost.
    """
    B, Q = scores.shape
    counts = torch.bincount(hand_image_index, minlength=B)
    G = int(counts.max()) if len(hand_image_index) else 0
    if G == 0 or Q == 0:
        empty = torch.zeros(0, dtype=torch.long, device=scores.device)
        return Assignment(empty, empty, empty, scores.new_zeros(0))
    first = counts.cumsum(0) - counts
    slot = torch.arange(len(hand_image_index), device=scores.device) - first[hand_image_index]
    hands = boxes_cxcywh.new_zeros(B, G, 4)
    hands[hand_image_index, slot] = hand_boxes_cxcywh.to(hands.dtype)
    real = torch.arange(G, device=scores.device) < counts[:, None]  # [B,G]

    queries_xyxy, hands_xyxy = (cxcywh_to_xyxy(boxes.float()) for boxes in (boxes_cxcywh, hands))
    iou, _ = iou_and_giou(queries_xyxy[:, :, None], hands_xyxy[:, None])  # [B,Q,G]
    classification = -scores.float().clamp(1e-8, 1).log()
    cost = classification[:, :, None] - iou.clamp(min=1e-8).log()
    cost = cost.masked_fill(~real[:, None], float('inf'))

    num_wanted = iou.topk(min(max_queries, Q), dim=1).values.sum(1).long().clamp(min=1)  # [B,G]
    rank = cost.argsort(dim=1, stable=True).argsort(dim=1)  # [B,Q,G]
    wanted = (rank < num_wanted[:, None]) & real[:, None]
    best_hand = cost.masked_fill(~wanted, float('inf')).argmin(dim=2)  # [B,Q]
    image_index, query_index = wanted.any(dim=2).nonzero(as_tuple=True)
    chosen = best_hand[image_index, query_index]
    return Assignment(
        image_index,
        query_index,
        first[image_index] + chosen,
        iou[image_index, query_index, chosen],
    )
