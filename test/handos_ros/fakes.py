"""Stand-ins for the model, for tests and benchmarks of what is around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from handos_model.hand.model import HandModel
from handos_model.types import Camera, Hand, ScaleSource, TrackState

HAND_MODEL = HandModel.embedded()
AHEAD_M = np.array([0.0, 0.0, 0.5])


def make_hand(hand_id: int = 0, side: str = 'right', **changes: Any) -> Hand:
    """The template's hand, half a metre in front of the camera."""
    random = np.random.default_rng(hand_id + 100)
    mirror = np.array([-1.0 if side == 'left' else 1.0, 1.0, 1.0])
    vertices_m = HAND_MODEL.v_template * mirror + AHEAD_M
    joints_m = HAND_MODEL.joint_regressor_21 @ vertices_m
    values: dict[str, Any] = {
        'id': hand_id,
        'age': 1,
        'state': TrackState.TRACKED,
        'side': side,
        'side_probability': 0.9,
        'score': 0.8,
        'box_xyxy_px': np.array([10.0, 20.0, 110.0, 220.0]),
        'joints_px': random.uniform(10, 200, (21, 2)),
        'joint_confidence': random.uniform(0, 1, 21),
        'joints_m': joints_m,
        'vertices_m': vertices_m,
        'wrist_rotation': np.eye(3),
        'translation_m': joints_m[9],
        'translation_covariance_m2': np.eye(3) * 1e-4,
        'scale_source': ScaleSource.INTRINSICS,
    }
    return Hand(**{**values, **changes})


@dataclass
class FakePerception:
    """Returns `hands` for every image; `before` is called first and may sleep or raise."""

    hands: list[Hand] = field(default_factory=lambda: [make_hand(0), make_hand(1, 'left')])
    before: Callable[[], None] = lambda: None
    model: str = 'fake'
    backend: str = 'nothing'
    template_hash: str = 'abc'
    triangles: Any = field(default_factory=lambda: HAND_MODEL.faces)
    calls: int = 0
    not_finite: int = 0
    cameras: list[Camera] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    depths: list[Any] = field(default_factory=list)

    def __call__(self, image_rgb: Any, camera: Camera, depth_m: Any) -> list[Hand]:
        self.calls += 1
        self.cameras = [*self.cameras[-100:], camera]
        self.shapes = [*self.shapes[-100:], image_rgb.shape]
        self.depths = [*self.depths[-100:], depth_m]
        self.before()
        return self.hands

    def theta(self, hand: Hand) -> Any:
        return np.arange(48) / 10


def sleeping(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)
