"""A network for tests that sees: each bright patch is a hand, as sure as it is bright.

Its graphs of a window answer in the coordinates of the whole, as real ones do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from handos_model.backends.base import Engine, WindowEngine
from handos_model.config import HandOSConfig
from handos_model.hand.model import HandModel
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.types import ROOT_JOINT
from handos_model.weights.exported import WindowPlace

NETWORK = replace(HandOSConfig.nano(), input_size_hw=(224, 288))
HAND_MODEL = HandModel.embedded()
WHOLE_HW = NETWORK.input_size_hw
PLACE, WINDOW_HW = WindowPlace(WHOLE_HW, (32, 64)), (128, 128)
QUERIES = 8
DARK = 150  # no patch: padding is grey


class PatchNetwork:
    """Detector and decoders of the whole input, or of a window from `corner_px` on."""

    def __init__(self, corner_px: tuple[int, int] = (0, 0)) -> None:
        self._corner_xy = np.array(corner_px[::-1])
        self.runs = 0  # of the detector
        self.blind = False
        self.gain = 1.0  # of scores
        vertices, joints = HAND_MODEL.pose(np.tile(np.eye(3), (16, 1, 1)), np.zeros(10))
        self._vertices, self._joints = vertices - joints[ROOT_JOINT], joints - joints[ROOT_JOINT]
        flat = self._joints[:, :2]
        self._in_box = (flat - flat.min(0)) / np.ptp(flat, axis=0) - 0.5

    def engine(self) -> Engine:
        return Engine('patches', self, dict.fromkeys((1, 2, 4), self), 'fp32')

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self._find(inputs['image'][0]) if 'image' in inputs else self._decode(inputs)

    def _find(self, image: np.ndarray) -> dict[str, Any]:
        self.runs += 1
        grey = image.max(-1)
        count, labels, stats, _ = cv2.connectedComponentsWithStats((grey > DARK).astype(np.uint8))
        boxes = np.full((1, QUERIES, 4), 0.01, np.float32)
        scores = np.zeros((1, QUERIES), np.float32)
        for row in range(0 if self.blind else min(QUERIES, count - 1)):
            x, y, w, h = stats[row + 1, :4]
            low = np.array([x, y]) + self._corner_xy
            size = np.array([w, h])
            boxes[0, row] = np.concatenate([low + size / 2, size]) / np.tile(WHOLE_HW[::-1], 2)
            brightness = float(grey[labels == row + 1].max())
            scores[0, row] = self.gain * (brightness - DARK) / (255 - DARK)
        queries = np.zeros((1, QUERIES, 2), np.float32)
        features = np.zeros((1, 1, 1), np.float32)
        return {
            'features': features, 'queries': queries, 'boxes_cxcywh': boxes, 'scores': scores,
        }  # fmt: skip

    def _decode(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        boxes = inputs['boxes_cxcywh']
        K = len(boxes)
        return {
            'joints_2d': boxes[:, None, :2] + self._in_box * boxes[:, None, 2:],
            'visibility': np.full((K, 21), 0.9, np.float32),
            'vertices_m': np.tile(self._vertices, (K, 1, 1)),
            'joints_m': np.tile(self._joints, (K, 1, 1)),
            'translation_m': np.tile(np.array([0, 0, 0.5]), (K, 1)),
            'right': np.full(K, 0.9),
        }


def patch_pipeline(**changes: Any) -> tuple[HandPipeline, PatchNetwork, PatchNetwork]:
    """A pipeline, its network and that of its window."""
    whole, window = PatchNetwork(), PatchNetwork(PLACE.corner_px)
    engine = whole.engine()
    engine.window = WindowEngine(PLACE, WINDOW_HW, window.engine())
    pipeline = HandPipeline.of_engine(engine, NETWORK, PipelineConfig(**changes), HAND_MODEL)
    whole.runs = window.runs = 0
    return pipeline, whole, window


def picture(*boxes_xywh: tuple[int, int, int, int], brightness: int = 255) -> np.ndarray:
    """An image of 640x480 with patches."""
    image = np.zeros((480, 640, 3), np.uint8)
    for x, y, w, h in boxes_xywh:
        image[y : y + h, x : x + w] = brightness
    return image
