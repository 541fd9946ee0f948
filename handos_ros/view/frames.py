"""What is viewed of a frame, put together from topics of the node and of its camera."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handos_model.draw import OverlayStyle, draw_hands
from handos_model.types import Camera, Hand, ImageArray, TrackState
from handos_ros.images.encodings import ImageError
from handos_ros.messages import conversions
from handos_ros.messages.conversions import CameraInfoError, Limits
from handos_ros.messages.hand_messages import hand_from_message
from handos_ros.messages.stamped import CameraInfo, Picture

IMAGES_KEPT = 16  # hands come after their image


@dataclass(frozen=True, eq=False)
class ViewFrame:
    """The hands of one image, and the image where it is known."""

    stamp_ns: int
    frame_id: str
    age_s: float  # from the stamp to the arrival of the hands
    model: str
    hands: list[Hand]  # without those that are lost
    triangles: npt.NDArray[np.int64] | None  # [F,3], of a right hand
    image_rgb: ImageArray | None  # [H,W,3]
    camera: Camera | None  # of the image

    def overlay_rgb(self) -> ImageArray | None:
        """The image with its hands drawn; None without an image."""
        if self.image_rgb is None or self.camera is None:
            return None
        with_mesh = self.triangles is not None and all(len(h.vertices_m) for h in self.hands)
        triangles = self.triangles if self.triangles is not None else np.zeros((0, 3), np.int64)
        style = OverlayStyle() if with_mesh else OverlayStyle(mesh_alpha=0.0)
        return draw_hands(self.image_rgb, self.hands, self.camera, triangles, style)


class FrameAssembler:
    """Finds the image, the calibration and the triangles that belong to the hands."""

    def __init__(self) -> None:
        self._images: deque[Picture] = deque(maxlen=IMAGES_KEPT)
        self._camera_info: CameraInfo | None = None
        self._triangles: npt.NDArray[np.int64] | None = None

    def add_image(self, message: Picture) -> None:
        self._images.append(message)

    def add_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def add_topology(self, message: Any) -> None:
        self._triangles = np.array(message.triangles, np.int64).reshape(-1, 3)

    def assemble(self, message: Any, now_ns: int) -> ViewFrame:
        """The frame of a handos/HandMeshArray."""
        stamp_ns = conversions.stamp_ns(message)
        image_rgb = self._find_image(stamp_ns)
        hands = [hand_from_message(hand) for hand in message.hands]
        return ViewFrame(
            stamp_ns=stamp_ns,
            frame_id=message.header.frame_id,
            age_s=(now_ns - stamp_ns) / 1e9,
            model=message.model,
            hands=[hand for hand in hands if hand.state is not TrackState.LOST],
            triangles=self._triangles,
            image_rgb=image_rgb,
            camera=None if image_rgb is None else self._camera(image_rgb),
        )

    def _find_image(self, stamp_ns: int) -> ImageArray | None:
        for message in reversed(self._images):
            if conversions.stamp_ns(message) == stamp_ns:
                try:
                    return conversions.image_to_rgb(message, Limits())
                except ImageError:  # the node says so in its diagnostics
                    return None
        return None

    def _camera(self, image_rgb: ImageArray) -> Camera:
        height, width = image_rgb.shape[:2]
        if self._camera_info is not None:
            with contextlib.suppress(CameraInfoError):
                return conversions.camera_from_info(self._camera_info, (height, width))
        return Camera.uncalibrated(width, height)  # the node takes the same guess
