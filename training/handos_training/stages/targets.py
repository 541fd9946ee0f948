"""Labels of a batch in the form the losses use: all hands in one list, normalised coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handos_training.data.sample import Batch, HandLabels


@dataclass
class HandTargets:
    """The N labelled hands of a whole batch.

    Normalised coordinates are (px + 0.5) / size, so that 0 and 1 are the borders of the image.
    """

    labels: HandLabels
    image_index: Tensor  # [N] int64, which image of the batch
    boxes_cxcywh: Tensor  # [N,4] normalised, of what is visible
    joints_2d: Tensor  # [N,21,2] normalised
    area_px2: Tensor  # [N] of the whole hand's box (of the visible box where that is unknown)
    image_size_px: Tensor  # [2] width, height

    def __len__(self) -> int:
        return self.image_index.shape[0]

    def __getitem__(self, index: Tensor) -> HandTargets:
        return HandTargets(
            self.labels[index],
            self.image_index[index],
            self.boxes_cxcywh[index],
            self.joints_2d[index],
            self.area_px2[index],
            self.image_size_px,
        )


def hand_targets(batch: Batch) -> HandTargets:
    """Gather and normalise the labels of a batch."""
    height, width = batch.images.shape[-2:]
    device = batch.images.device
    labels = batch.hands
    size_px = torch.tensor([width, height], dtype=torch.float32, device=device)
    return HandTargets(
        labels,
        batch.image_index,
        xyxy_px_to_cxcywh(labels.boxes_xyxy_px, size_px),
        (labels.joints_px + 0.5) / size_px,
        _area_px2(labels),
        size_px,
    )


def xyxy_px_to_cxcywh(boxes_xyxy_px: Tensor, image_size_px: Tensor) -> Tensor:
    """Pixel corners [N,4] to normalised centre and size [N,4]."""
    low, high = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:]
    centre = ((low + high) / 2 + 0.5) / image_size_px
    return torch.cat([centre, (high - low) / image_size_px], dim=1)


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Centre and size [...,4] to corners [...,4], in the same units."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def iou_and_giou(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU [...] of boxes [...,4] one by one; 0 where both are empty."""
    low = torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    hull = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.minimum(
        a_xyxy[..., :2], b_xyxy[..., :2]
    )
    overlap = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1) for boxes in (a_xyxy, b_xyxy)]
    union = areas[0] + areas[1] - overlap
    iou = overlap / union.clamp(min=1e-9)
    hull_area = hull.prod(-1).clamp(min=1e-9)
    return iou, iou - (hull_area - union) / hull_area


def _area_px2(labels: HandLabels) -> Tensor:
    def area(boxes: Tensor) -> Tensor:
        return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)

    whole = area(labels.amodal_boxes_xyxy_px)
    return torch.where(whole > 0, whole, area(labels.boxes_xyxy_px))
