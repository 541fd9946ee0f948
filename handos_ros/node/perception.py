"""What the node needs from the model, and how it is built from the node's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from handos_model.types import Camera, FloatArray, Hand, ImageArray
from handos_ros.node.parameters import Settings


class Perception(Protocol):
    """Images to hands, each by itself; one thread calls it."""

    model: str  # name of the weights
    template_hash: str
    triangles: npt.NDArray[np.int64]  # [F,3]

    @property
    def backend(self) -> str:
        """What runs the weights now, and why it was chosen; TensorRT takes over while serving."""
        ...

    @property
    def not_finite(self) -> int:
        """Hands of the last image that were left out, because the network returned NaN."""
        ...

    def __call__(
        self, image_rgb: ImageArray, camera: Camera, depth_m: FloatArray | None
    ) -> list[Hand]:
        """Hands of one image [H,W,3], every number of them finite."""
        ...

    def theta(self, hand: Hand) -> FloatArray:
        """MANO pose [48] of a hand, radians, fitted to its mesh."""
        ...


# Builds a Perception; it may take minutes, and tells what it is doing through `report`.
PerceptionFactory: TypeAlias = Callable[[Settings, Callable[[str], None]], Perception]


class PipelinePerception:
    """The network's pipeline, as the settings describe it."""

    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        from handos_model.backends.base import EngineOptions
        from handos_model.following import FollowConfig, HandFollower
        from handos_model.hand.kinematics import PoseFitter
        from handos_model.hand.model import HandModel
        from handos_model.pipeline import HandPipeline, PipelineConfig

        report(f'loading {settings.model}')
        hand_model = HandModel.of(settings.mano)
        self._fitter = PoseFitter(hand_model)
        config = PipelineConfig(
            score_threshold=settings.score_threshold,
            max_hands=settings.max_hands,
            hand_length_m=settings.hand_length_m or None,
        )
        if not settings.closer_look:
            config = replace(config, closer_below_px=None, doubtful_score=None)
        self._pipeline = HandPipeline(
            settings.model,
            settings.backend,
            config,
            EngineOptions(
                max_hands=settings.max_hands,
                window=settings.closer_look or settings.follow > 0,
            ),
            hand_model,
        )
        self._hands_of: Callable[..., list[Hand]] = self._pipeline
        if settings.follow:
            self._hands_of = HandFollower(self._pipeline, FollowConfig(settings.follow))
        self.model = settings.model
        self.template_hash = hand_model.template_hash
        self.triangles = hand_model.faces

    @property
    def backend(self) -> str:
        return f'{self._pipeline.backend} ({self._pipeline.backend_reason})'

    @property
    def not_finite(self) -> int:
        return self._pipeline.not_finite

    def __call__(
        self, image_rgb: ImageArray, camera: Camera, depth_m: FloatArray | None
    ) -> list[Hand]:
        return self._hands_of(image_rgb, camera, depth_m)

    def theta(self, hand: Hand) -> FloatArray:
        return self._fitter(hand.vertices_m, hand.is_left).theta.reshape(-1)
