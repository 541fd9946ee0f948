"""Weights of the 2D stage in evaluation: boxes and 2D joints, without a mesh (Table 6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.network.handos import HandOS
from handos_model.preprocess import Letterbox
from handos_model.types import (
    NUM_VERTICES,
    Camera,
    FloatArray,
    Hand,
    ImageArray,
    ScaleSource,
    TrackState,
)
from handos_training.evaluation.prediction import predict

MAX_HANDS = 32


class FlatPipeline:
    """What `HandPipeline` is to a mesh, for a network without one: everything in 3D is zero."""

    def __init__(self, weights: Path, hand_model: HandModel | None) -> None:
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.network = HandOS.from_pretrained(weights, hand_model).to(self.device)
        self.backend = f'torch on {self.device.type.upper()}, 2D stage'

    def __call__(self, image: ImageArray, camera: Camera) -> list[Hand]:
        """Hands of image [H,W,3], best first; score 0.1 and NMS 0.9."""
        size_hw = (image.shape[0], image.shape[1])
        letterbox = Letterbox(size_hw, self.network.config.size_for(size_hw))
        pixels = letterbox.buffer()
        letterbox.apply(image, pixels)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
        (found,) = predict(self.network, images, MAX_HANDS)
        size_px = np.array(letterbox.network_hw[::-1])
        joints_px = letterbox.to_image((found.joints_px + 0.5) / size_px)
        corners = (found.boxes_xyxy_px.reshape(-1, 2, 2) + 0.5) / size_px
        boxes = letterbox.to_image(corners).reshape(-1, 4)
        return [_hand(float(found.scores[i]), boxes[i], joints_px[i]) for i in range(len(boxes))]

    def in_boxes(self, image: ImageArray, camera: Camera, boxes_xyxy_px: FloatArray) -> list[Hand]:
        """Raises UserError: the paper's ablations of the 2D stage use the detector's boxes."""
        raise UserError(
            'weights of the 2D stage are evaluated in detected boxes: leave out --boxes truth, or '
            'give weights of the full stage'
        )


def _hand(score: float, box_xyxy_px: FloatArray, joints_px: FloatArray) -> Hand:
    return Hand(
        id=-1,
        age=0,
        state=TrackState.TRACKED,
        side='right',
        side_probability=0.5,
        score=score,
        box_xyxy_px=box_xyxy_px,
        joints_px=joints_px,
        joint_confidence=np.ones(21),
        joints_m=np.zeros((21, 3)),
        vertices_m=np.zeros((NUM_VERTICES, 3)),
        wrist_rotation=np.eye(3),
        translation_m=np.zeros(3),
        translation_covariance_m2=np.zeros((3, 3)),
        scale_source=ScaleSource.NETWORK,
    )
