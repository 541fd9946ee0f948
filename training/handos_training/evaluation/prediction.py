"""What the network says of images: the hands it finds, as the pipeline would report them.

Instances above the score threshold after suppression; no true box and no true side is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from handos_model.network.handos import HandOS
from handos_model.selection import select_instances
from handos_training.stages.targets import cxcywh_to_xyxy

Array = npt.NDArray[np.float64]


@dataclass
class Prediction:
    """The P hands that the network finds in one image; pixels of the network's input."""

    boxes_xyxy_px: Array  # [P,4]
    scores: Array  # [P]
    joints_px: Array  # [P,21,2]
    vertices_m: Array | None  # [P,778,3]


@torch.no_grad()
def predict(network: HandOS, images: Tensor, max_hands: int = 4) -> list[Prediction]:
    """Reconstruct the hands of images [B,3,H,W], uint8."""
    height, width = images.shape[-2:]
    size_px = images.new_tensor([width, height], dtype=torch.float32)
    features = network.encode(images)
    detected = features.detector
    scores = detected.scores.float().cpu().numpy()
    boxes = detected.boxes_cxcywh.float()
    kept = [
        select_instances(scores[i], boxes[i].cpu().numpy(), max_hands=max_hands)
        for i in range(len(images))
    ]
    counts = torch.tensor([len(one) for one in kept])
    image_index = torch.arange(len(images)).repeat_interleave(counts).to(images.device)
    query = torch.from_numpy(np.concatenate(kept)).to(images.device)
    chosen = boxes[image_index, query]
    output = network.decode(
        features, image_index, detected.instance_queries[image_index, query], chosen
    )[-1]
    boxes_px = cxcywh_to_xyxy(chosen) * size_px.repeat(2) - 0.5
    joints_px = output.joints_2d.float() * size_px - 0.5

    def per_image(values: Tensor) -> list[Array]:
        return [
            part.double().numpy() for part in torch.split(values.float().cpu(), counts.tolist())
        ]

    meshes = None if output.vertices_m is None else per_image(output.vertices_m)
    return [
        Prediction(
            box,
            scores[i][kept[i]].astype(np.float64),
            joints,
            None if meshes is None else meshes[i],
        )
        for i, (box, joints) in enumerate(
            zip(per_image(boxes_px), per_image(joints_px), strict=True)
        )
    ]
