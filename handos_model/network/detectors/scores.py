"""One score of two: of a query's token as the encoder saw it, and of the query as it came out.

The encoder scores every token by itself; the decoder's queries see each other and the best of a
hand silences the rest. The first finds more hands, above all the second of two alike, which
queries take for a copy of the first; the second tells copies apart and knows the surer boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from handos_model.config import ScoreConfig

SAME_HAND_IOU = 0.4  # of boxes from which on queries are taken to see one hand
COPIED = 8.0  # logits that a copy loses for each that it is less sure than the surest
NO_LOGIT = -100.0  # below every logit; finite, as half precision needs it


def evidence(token_logits: Tensor, logits: Tensor, boxes_cxcywh: Tensor) -> tuple[Tensor, Tensor]:
    """What tokens and what queries say for a hand: logits [B,Q] each.

    `token_logits` [B,Q] are the encoder's, of the token that each query starts from; `logits`
    [B,Q] the last layer's, `boxes_cxcywh` [B,Q,4] its boxes, normalised.

    The surest query of those whose boxes overlap speaks for all of their tokens; the others are
    copies of it, or a second hand across the first, and count no more than they think of
    themselves. In between it goes steeply but without a step, which rounding would turn over.
    A query that sees no hand says nothing: it may have been silenced.
    """
    same = _iou(boxes_cxcywh) > SAME_HAND_IOU  # [B,Q,Q]
    best_token, surest = (
        # With its own, because a box without area does not overlap even itself.
        torch.maximum(part, torch.where(same, part.unsqueeze(-2), NO_LOGIT).amax(-1))
        for part in (token_logits, logits)
    )
    alone = torch.minimum(token_logits, logits)
    tokens = torch.maximum(alone, best_token - COPIED * (surest - logits))
    return tokens, logits.clamp(min=0)


def fused_logits(
    config: ScoreConfig, token_logits: Tensor, logits: Tensor, boxes_cxcywh: Tensor
) -> Tensor:
    """Logits [B,Q] of a hand; the arguments are those of `evidence`."""
    tokens, queries = evidence(token_logits, logits, boxes_cxcywh)
    return config.tokens * tokens + config.queries * queries + config.offset


def _iou(boxes_cxcywh: Tensor) -> Tensor:
    """Of every two boxes [B,Q,4] of an image: [B,Q,Q]."""
    x, y, width, height = boxes_cxcywh.unbind(-1)
    shared = _overlap(x, width) * _overlap(y, height)
    area = width * height
    return shared / (area.unsqueeze(-1) + area.unsqueeze(-2) - shared)


def _overlap(centre: Tensor, length: Tensor) -> Tensor:
    """How far every two of the intervals [B,Q] overlap: [B,Q,Q]."""
    low, high = centre - length / 2, centre + length / 2
    first = torch.maximum(low.unsqueeze(-1), low.unsqueeze(-2))
    last = torch.minimum(high.unsqueeze(-1), high.unsqueeze(-2))
    return (last - first).clamp(min=0)
