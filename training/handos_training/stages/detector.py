"""Training our own D-FINE or RT-DETRv2 hand detector with transformers' own losses.

The losses are the library's: Hungarian matching, varifocal, L1 and GIoU terms (for D-FINE also
the fine-grained distribution terms) on every layer, and on denoising queries. What is added here:
unmatched queries of an image whose hands are not all labelled are no negatives, and the heavy
convolutions run in reduced precision while the boxes stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from handos_model.network.detectors.dfine import DFineDetector
from handos_model.network.detectors.protocol import DetectorOutput, flatten_maps
from handos_training.stages.detection_loss import detection_loss
from handos_training.stages.losses import Term
from handos_training.stages.targets import HandTargets, cxcywh_to_xyxy


class DetectorStage(nn.Module):
    """Wraps a detector of the D-FINE family; `forward` gives its output and its loss terms."""

    def __init__(self, detector: DFineDetector) -> None:
        super().__init__()
        self.detector = detector
        model: Any = detector.model
        model.loss_function = detection_loss

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
    counts = torch.bincount(targets.image_index, minlength=len(all_hands_labelled)).tolist()
    classes = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
    parts = zip(
        torch.split(classes, counts), torch.split(boxes, counts), all_hands_labelled, strict=True
    )
    names = ('class_labels', 'boxes', 'complete')
    return [dict(zip(names, part, strict=True)) for part in parts]


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
