"""Pictures for TensorBoard: what the network says on the left, the truth on the right."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from handos_model.types import SKELETON_EDGES
from handos_training.data.sample import Batch
from handos_training.evaluation.prediction import Prediction

Image = npt.NDArray[np.uint8]
# Wrist edges grey; then a hue a finger, thumb to little.
FINGER_RGB = ((255, 80, 80), (255, 200, 40), (80, 220, 80), (60, 180, 255), (210, 110, 255))


def panel(batch: Batch, predictions: Sequence[Prediction]) -> Image:
    """One row an image: prediction and truth side by side, [rows*H, 2*W, 3] RGB."""
    rows = []
    for i, prediction in enumerate(predictions):
        image = np.ascontiguousarray(batch.images[i].cpu().permute(1, 2, 0).numpy())
        labels = batch.hands_of(i).to('cpu')
        guess, truth = image.copy(), image.copy()
        for box, joints, score in zip(
            prediction.boxes_xyxy_px, prediction.joints_px, prediction.scores, strict=True
        ):
            draw_hand(guess, box, joints, f'{score:.2f}')
        for n in range(len(labels)):
            joints = labels.joints_px[n].double().numpy()
            joints = np.where(labels.has_joint_px[n].numpy()[:, None], joints, np.nan)
            side = ('R', 'L')[int(labels.is_left[n])] if labels.has_side[n] else '?'
            draw_hand(truth, labels.boxes_xyxy_px[n].double().numpy(), joints, side)
        rows.append(np.concatenate([guess, truth], axis=1))
    return np.concatenate(rows)


def joint_map_predictions(logits: torch.Tensor, batch: Batch) -> list[Prediction]:
    """The dense stage's answer in the true boxes: the highest cell of each joint's map."""
    h, w = logits.shape[-2:]
    height, width = batch.images.shape[-2:]
    scale = np.array([width / w, height / h])
    predictions = []
    for i in range(len(batch.images)):
        boxes = batch.hands_of(i).boxes_xyxy_px.double().cpu().numpy()
        joints = np.zeros((len(boxes), 21, 2))
        for n, box in enumerate(boxes):
            x0, y0 = np.maximum(box[:2] / scale, 0).astype(int)
            x1, y1 = np.minimum(np.ceil(box[2:] / scale) + 1, [w, h]).astype(int)
            inside = logits[i, :, y0:y1, x0:x1].float().cpu()
            cell = inside.flatten(1).argmax(1).numpy()
            cells = np.stack([x0 + cell % inside.shape[2], y0 + cell // inside.shape[2]], -1)
            joints[n] = (cells + 0.5) * scale - 0.5
        predictions.append(Prediction(boxes, np.ones(len(boxes)), joints, None))
    return predictions


def draw_hand(
    image: Image, box_xyxy_px: npt.ArrayLike, joints_px: npt.ArrayLike, text: str
) -> None:
    """Draw a box, a skeleton and a word into an RGB image; NaN joints are left out."""
    box, joints = np.asarray(box_xyxy_px), np.asarray(joints_px)
    x0, y0, x1, y1 = (int(value) for value in box.round())
    cv2.rectangle(image, (x0, y0), (x1, y1), (255, 255, 255), 1)
    cv2.putText(image, text, (x0 + 2, y0 + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1)
    for parent, child in SKELETON_EDGES:
        ends = joints[[parent, child]]
        if not np.isfinite(ends).all() or np.abs(ends).max() > 1e5:
            continue
        a, b = (tuple(int(value) for value in end.round()) for end in ends)
        cv2.line(image, a, b, FINGER_RGB[(child - 1) // 4], 2, cv2.LINE_AA)
