"""Transformers' losses of the D-FINE family over a whole batch at once.

The library loops over images in every term of every layer: on a GPU that is thousands of small
copies a step, and longer than the network takes. Its terms are sums over queries that are divided
by the number of hands (and the distillation's two means are weighed by numbers whose ratio does
not depend on the images), so a batch may as well be one image with the queries and hands of all.
Only which query is matched with which hand is said image by image, before.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from handos_training.stages.targets import cxcywh_to_xyxy, iou_and_giou

IGNORED_LOGIT = -30.0  # a probability of 1e-13: neither loss nor gradient


def detection_loss(
    logits: Tensor,
    labels: list[dict[str, Tensor]],
    device: torch.device,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor,
    outputs_coord: Tensor,
    enc_topk_logits: Tensor,
    enc_topk_bboxes: Tensor,
    denoising_meta_values: dict[str, Any] | None = None,
    predicted_corners: Tensor | None = None,
    initial_reference_points: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, dict[str, Tensor], None]:
    """In place of a detector's `loss_function`: the sum, and every term of every layer.

    logits [B,Q',classes] and boxes [B,Q',4] are the last layer's of outputs_class [B,L,Q',classes]
    and outputs_coord [B,L,Q',4] (cxcywh in [0,1]), whose first queries are the denoising ones; the
    encoder's choice is enc_topk_logits [B,Q,classes] and enc_topk_bboxes [B,Q,4]. D-FINE adds
    predicted_corners [B,L-1,Q',4*bins] and initial_reference_points [B,L-1,Q',4]. `labels` has the
    `class_labels` [n] and `boxes` [n,4] of each image, and bool [] `complete`: where it is False,
    queries that are matched with no hand teach nothing, as they may show one.
    """
    layers = {'logits': outputs_class, 'pred_boxes': outputs_coord.clamp(0, 1)}
    is_dfine = hasattr(config, 'reg_scale')
    if is_dfine:
        assert predicted_corners is not None and initial_reference_points is not None
        layers |= {'pred_corners': predicted_corners, 'ref_points': initial_reference_points}
    noisy = 0 if denoising_meta_values is None else denoising_meta_values['dn_num_split'][0]
    own = {name: values[:, :, noisy:] for name, values in layers.items()}
    hands = _Hands(labels)
    found = torch.cat([own['logits'], enc_topk_logits[:, None]], 1).detach()
    boxes = torch.cat([own['pred_boxes'], enc_topk_bboxes[:, None].clamp(0, 1)], 1).detach()
    matches = _match(found, boxes, hands, config)

    def known(values: Tensor, layer: int) -> Tensor:
        """Logits [B,Q,classes] without those of unmatched queries of incomplete images."""
        ignored = hands.incomplete[:, None].expand(values.shape[:2]).reshape(-1)
        ignored = ignored.index_fill(0, matches[layer][0], False).view(values.shape[:2])
        return values.masked_fill(ignored[..., None], IGNORED_LOGIT)

    L = outputs_class.shape[1]
    own['logits'] = torch.stack([known(own['logits'][:, i], i) for i in range(L)], 1)
    first = {
        'logits': _as_one(known(enc_topk_logits, L)),
        'pred_boxes': _as_one(enc_topk_bboxes.clamp(0, 1)),
        'matches': matches[L],
    }
    last = {
        'logits': _as_one(own['logits'][:, -1]),
        'pred_boxes': _as_one(own['pred_boxes'][:, -1]),
    }
    outputs: dict[str, Any] = last | {'matches': matches[L - 1]}
    if config.auxiliary_loss:
        earlier = _layers(own, is_dfine)[:-1]
        outputs['auxiliary_outputs'] = [
            *(layer | {'matches': matches[i]} for i, layer in enumerate(earlier)),
            first,
        ]
    if config.auxiliary_loss and denoising_meta_values is not None:
        noised = {name: values[:, :, :noisy] for name, values in layers.items()}
        groups = denoising_meta_values['dn_num_group']
        outputs['dn_auxiliary_outputs'] = _layers(noised, is_dfine)
        outputs['denoising_meta_values'] = {
            'dn_positive_idx': [hands.denoising_queries(noisy, groups)],
            'dn_num_group': groups,
        }
    terms = _criterion(config, is_dfine).to(device)(
        outputs, [{'class_labels': hands.classes, 'boxes': hands.boxes_cxcywh}]
    )
    return sum(terms.values(), logits.new_zeros(())), terms, None


class _Hands:
    """The N hands of all B images, image after image."""

    def __init__(self, labels: list[dict[str, Tensor]]) -> None:
        self.counts = [len(label['boxes']) for label in labels]
        self.boxes_cxcywh = torch.cat([label['boxes'] for label in labels])
        self.classes = torch.cat([label['class_labels'] for label in labels])
        self.incomplete = ~torch.stack([label['complete'] for label in labels])
        device = self.boxes_cxcywh.device
        image = [i for i, count in enumerate(self.counts) for _ in range(count)]
        slot = [i for count in self.counts for i in range(count)]
        self.image, self.slot = torch.tensor([image, slot], dtype=torch.long).to(device)

    def denoising_queries(self, queries: int, groups: int) -> Tensor:
        """The positive denoising queries [groups*N], of `queries` an image.

        A group of the library has a positive query for each of as many hands as an image has at
        most, and then as many negative ones.
        """
        group = torch.arange(groups, device=self.image.device)[:, None] * (queries // groups)
        positives: Tensor = self.image * queries + group + self.slot
        return positives.flatten()


@torch.no_grad()
def _match(
    logits: Tensor, boxes_cxcywh: Tensor, hands: _Hands, config: Any
) -> list[tuple[Tensor, Tensor]]:
    """The Hungarian matching of each layer: flat query in [0,B*Q) and hand, both [N].

    logits [B,L,Q,classes], boxes [B,L,Q,4]. The costs are the library's (RTDetrHungarianMatcher):
    focal (class), L1 and generalised IoU (box).
    """
    B, L, Q = logits.shape[:3]
    G = max(hands.counts)
    if G == 0:
        nothing = torch.zeros(0, dtype=torch.long, device=logits.device)
        return [(nothing, nothing)] * L
    place = (hands.image, hands.slot)
    targets = boxes_cxcywh.new_full((B, G, 4), 0.5).index_put(place, hands.boxes_cxcywh)
    classes = hands.classes.new_zeros(B, G).index_put(place, hands.classes)
    p = logits.sigmoid().gather(3, classes[:, None, None].expand(B, L, Q, G))
    alpha, gamma = config.matcher_alpha, config.matcher_gamma
    costs = config.matcher_class_cost * (
        alpha * (1 - p) ** gamma * -(p + 1e-8).log()
        - (1 - alpha) * p**gamma * -(1 - p + 1e-8).log()
    )
    found, wanted = boxes_cxcywh[:, :, :, None], targets[:, None, None]  # [B,L,Q,1,4], [B,1,1,G,4]
    costs += config.matcher_bbox_cost * (found - wanted).abs().sum(-1)
    costs -= (
        config.matcher_giou_cost * iou_and_giou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(wanted))[1]
    )
    lots = torch.finfo(costs.dtype).max
    table = costs.nan_to_num(lots, lots, lots).cpu().numpy()
    pairs: list[list[tuple[int, int]]] = [[] for _ in range(L)]
    start = 0
    for image, count in enumerate(hands.counts):
        for layer in range(L if count else 0):
            queries, slots = linear_sum_assignment(table[image, layer, :, :count])
            pairs[layer] += zip(
                (image * Q + queries).tolist(), (start + slots).tolist(), strict=True
            )
        start += count
    matched = torch.tensor(pairs, dtype=torch.long).to(logits.device)  # [L,N,2]
    return [(layer[:, 0], layer[:, 1]) for layer in matched]


def _as_one(values: Tensor) -> Tensor:
    """[B,Q,...] as one image [1,B*Q,...]."""
    return values.flatten(0, 1)[None]


def _layers(outputs: dict[str, Tensor], is_dfine: bool) -> list[dict[str, Tensor]]:
    """The layers of [B,L,Q,...], each as one image; D-FINE's last one teaches the others.

    D-FINE says scores and boxes once more before its first layer, but corners only after each; as
    in the library, the two are paired by their number.
    """
    layers = [
        {name: _as_one(values[:, i]) for name, values in outputs.items()}
        for i in range(min(values.shape[1] for values in outputs.values()))
    ]
    if not is_dfine:
        return layers
    teacher = {
        'teacher_corners': _as_one(outputs['pred_corners'][:, -1]),
        'teacher_logits': _as_one(outputs['logits'][:, -1]),
    }
    return [layer | teacher for layer in layers]


def _criterion(config: Any, is_dfine: bool) -> nn.Module:
    from transformers.loss.loss_d_fine import DFineLoss
    from transformers.loss.loss_rt_detr import RTDetrLoss

    criterion: nn.Module = (DFineLoss if is_dfine else RTDetrLoss)(config)
    criterion.matcher = _KnownMatches()
    return criterion


class _KnownMatches(nn.Module):
    """Where the criterion looks for a matcher."""

    def forward(self, outputs: dict[str, Any], _: object) -> list[tuple[Tensor, Tensor]]:
        return [outputs['matches']]
