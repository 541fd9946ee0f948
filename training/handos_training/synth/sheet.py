"""Contact sheets: images of a batch with their labels drawn over them."""

from __future__ import annotations

import cv2
import numpy as np

from handos_model.types import SKELETON_EDGES
from handos_training.data.sample import Batch, HandLabels
from handos_training.data.tiles import Image, tiled

FINGER_COLOURS = ((255, 60, 60), (255, 170, 0), (60, 220, 60), (60, 160, 255), (220, 80, 255))
LEFT_COLOUR, RIGHT_COLOUR = (0, 255, 255), (255, 255, 0)


def draw_labels(image: Image, hands: HandLabels) -> Image:
    """RGB [H,W,3] with boxes (cyan left, yellow right), bones, and joints (black where hidden)."""
    canvas = np.ascontiguousarray(image)
    for i in range(len(hands)):
        x0, y0, x1, y1 = hands.boxes_xyxy_px[i].round().int().tolist()
        side = LEFT_COLOUR if hands.is_left[i] else RIGHT_COLOUR
        cv2.rectangle(canvas, (x0, y0), (x1, y1), side, 1)
        points = hands.joints_px[i].clamp(-1e4, 1e4).round().int().tolist()
        for parent, child in SKELETON_EDGES:
            colour = FINGER_COLOURS[(child - 1) // 4]
            cv2.line(canvas, points[parent], points[child], colour, 1, cv2.LINE_AA)
        for point, visible in zip(points, hands.joint_visible[i].tolist(), strict=True):
            cv2.circle(canvas, point, 2, (255, 255, 255) if visible else (0, 0, 0), -1)
    return canvas


def contact_sheet(batch: Batch, columns: int, labels: bool = True) -> Image:
    """All images of a batch side by side, RGB [rows H, columns W, 3]; empty cells are black."""
    images = batch.images.permute(0, 2, 3, 1).cpu().numpy()
    cells = [
        draw_labels(image, batch.hands_of(i).to('cpu')) if labels else image
        for i, image in enumerate(images)
    ]
    return tiled(cells, columns)
