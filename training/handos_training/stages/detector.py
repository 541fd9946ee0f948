"""Training our own D-FINE or RT-DETRv2 hand detector with transformers' own losses.

The losses are the library's: Hungarian matching, varifocal, L1 and GIoU terms (for D-FINE also
the fine-grained distribution terms) on every layer, and on denoising queries. What is added here:
unmatched queries of an image whose hands are not all labelled are no negatives, and the heavy
convolutions run in reduced precision while the boxes stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from handos_model.network.detectors.dfine import DFineDetector
from handos_model.network.detectors.protocol import DetectorOutput, flatten_maps
from handos_training.stages.losses import Term
from handos_training.stages.targets import HandTargets, cxcywh_to_xyxy

IGNORED_LOGIT = -30.0  # a probability of 1e-13: neither loss nor gradient


class DetectorStage(nn.Module):
    """Wraps a detector of the D-FINE family; `forward` gives its output and its loss terms."""

    def __init__(self, detector: DFineDetector) -> None:
        super().__init__()
        self.detector = detector
        model: Any = detector.model
        model.loss_function = ignoring_unlabelled(model.loss_function)

    def forward(
        self, images: Tensor, targets: HandTargets, all_hands_labelled: Tensor
    ) -> tuple[DetectorOutput, dict[str, Term]]:
        """images [B,3,H,W] in [0,1]; `all_hands_labelled` bool [B]."""
        output, loss_dict = self._run(images, detector_labels(targets, all_hands_labelled))
        return output, _terms(loss_dict, len(targets))

    def detect(self, images: Tensor) -> DetectorOutput:
        """The output alone, without labels."""
        return self._run(images, None)[0]

    def _run(
        self, images: Tensor, labels: list[dict[str, Tensor]] | None
    ) -> tuple[DetectorOutput, dict[str, Tensor]]:
        model: Any = self.detector.model
        maps, backbone_maps = encoder_maps(self.detector, images)
        with (
            torch.autocast(images.device.type, enabled=False),
            _initial_queries(model) as initial,
        ):
            maps = [level.float() for level in maps]
            outputs = model(
                pixel_values=None, inputs_embeds=maps[0], encoder_outputs=(maps,), labels=labels
            )
        memory, spatial_shapes = flatten_maps(maps)
        Q = model.config.num_queries  # denoising queries come before these
        logits = outputs.logits[:, -Q:]
        output = DetectorOutput(
            memory=memory,
            spatial_shapes=spatial_shapes,
            queries_initial=initial[0][:, -Q:],
            queries_final=outputs.last_hidden_state[:, -Q:],
            boxes_cxcywh=outputs.pred_boxes[:, -Q:],
            scores=logits[..., self.detector.hand_label].sigmoid(),
            logits=logits,
            backbone_maps=backbone_maps,
        )
        return output, outputs.loss_dict or {}


def encoder_maps(
    detector: DFineDetector, images: Tensor
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Encoder maps and backbone maps [B,c,h,w], finest first, of images [B,3,H,W] in [0,1]."""
    inner: Any = detector.model.model
    pixels = detector.normalise(images).contiguous(memory_format=torch.channels_last)
    features = inner.backbone(pixels, torch.ones_like(pixels[:, 0]))
    projected = [
        project(feature)
        for project, (feature, _) in zip(inner.encoder_input_proj, features, strict=True)
    ]
    maps = list(inner.encoder(projected).last_hidden_state)
    return maps, tuple(feature for feature, _ in features)


def detector_labels(targets: HandTargets, all_hands_labelled: Tensor) -> list[dict[str, Tensor]]:
    """The labels of each image as transformers' detection losses take them."""
    corners = cxcywh_to_xyxy(targets.boxes_cxcywh).clamp(0, 1)
    size = (corners[:, 2:] - corners[:, :2]).clamp(min=1e-4)
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, size], dim=1)
    labels = []
    for image, complete in enumerate(all_hands_labelled):
        of_image = boxes[targets.image_index == image]
        classes = torch.zeros(len(of_image), dtype=torch.long, device=boxes.device)
        labels.append({'class_labels': classes, 'boxes': of_image, 'complete': complete})
    return labels


def ignoring_unlabelled(loss_function: Callable[..., Any]) -> Callable[..., Any]:
    """Let labels with `complete` False teach a detection loss of transformers no negatives.

    In such images the logits of unmatched queries are replaced by a constant. The matching stays
    the same, because only the costs of unmatched queries rise.
    """

    def wrapped(
        logits: Tensor,
        labels: list[dict[str, Tensor]],
        device: torch.device,
        pred_boxes: Tensor,
        config: Any,
        outputs_class: Tensor,
        outputs_coord: Tensor,
        enc_topk_logits: Tensor,
        enc_topk_bboxes: Tensor,
        **kwargs: Any,
    ) -> Any:
        incomplete = ~torch.stack([label['complete'] for label in labels])
        if incomplete.any():
            from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

            matcher = RTDetrHungarianMatcher(config)

            def mask(values: Tensor, boxes: Tensor) -> Tensor:
                ignored = incomplete[:, None].expand(values.shape[:2]).clone()
                # Denoising queries come first; they are matched by construction.
                ignored[:, : values.shape[1] - config.num_queries] = False
                matched = matcher(
                    {
                        'logits': values[:, -config.num_queries :],
                        'pred_boxes': boxes[:, -config.num_queries :].clamp(0, 1),
                    },
                    labels,
                )
                for image, (queries, _) in enumerate(matched):
                    ignored[image, values.shape[1] - config.num_queries + queries] = False
                return values.masked_fill(ignored[..., None], IGNORED_LOGIT)

            layers = zip(outputs_class.unbind(1), outputs_coord.unbind(1), strict=True)
            outputs_class = torch.stack([mask(*layer) for layer in layers], dim=1)
            logits = outputs_class[:, -1]
            enc_topk_logits = mask(enc_topk_logits, enc_topk_bboxes)
        return loss_function(
            logits, labels, device, pred_boxes, config, outputs_class, outputs_coord,
            enc_topk_logits=enc_topk_logits, enc_topk_bboxes=enc_topk_bboxes, **kwargs,
        )  # fmt: skip

    return wrapped


@contextmanager
def _initial_queries(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what enters the detector's decoder inside the `with` block."""
    captured: list[Tensor] = []
    inner: Any = model.model

    def keep(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        captured.append(kwargs['inputs_embeds'])

    handle = inner.decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield captured
    finally:
        handle.remove()


def _terms(loss_dict: dict[str, Tensor], num_hands: int) -> dict[str, Term]:
    """Sum the layers of each loss and undo the library's mean over this process's hands."""
    terms: dict[str, Term] = {}
    for name, value in loss_dict.items():
        kind = 'detector_' + name.removeprefix('loss_').split('_')[0]
        total = value * max(num_hands, 1)
        if kind in terms:
            total = terms[kind].total + total
        terms[kind] = Term(total, value.new_tensor(float(num_hands)))
    return terms
