"""From a camera image to the network's input and back, in one exact mapping.

Pixel (0, 0) is the centre of the first pixel; normalised coordinates are (px + 0.5) / size, as
DETR and grid_sample(align_corners=False) have them, and cv2.resize samples by the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from handos_model.types import FloatArray, ImageArray

PADDING_VALUE = 114  # grey, as in the YOLO and RT-DETR families
# Of a window's side, for the longer side of the box in its middle: with room for a hand that has
# moved since its box was told, and without, where the box is of the same image.
HAND_IN_WINDOW = 0.66
STILL_HAND_IN_WINDOW = 0.78
ChannelOrder: TypeAlias = Literal['rgb', 'bgr']


class Mapping:
    """From the network's normalised coordinates to pixels of an image."""

    image_hw: tuple[int, int]
    network_hw: tuple[int, int]
    _from_network: tuple[FloatArray, FloatArray]  # scale and offset [2]

    def to_image(self, points_normalised: FloatArray) -> FloatArray:
        """Pixels of the image [...,2] of points normalised to the network's input."""
        scale, offset = self._from_network
        return np.asarray(points_normalised * scale + offset)

    def boxes_to_image(self, boxes_cxcywh: FloatArray) -> FloatArray:
        """boxes_xyxy_px [...,4] of the image, from normalised boxes, cut at its border."""
        centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
        low, high = self.to_image(centre - half), self.to_image(centre + half)
        limits = np.array(self.image_hw[::-1]) - 0.5
        pixels = np.concatenate([low, high], axis=-1)
        return np.asarray(np.minimum(np.maximum(pixels, -0.5), np.tile(limits, 2)))

    def project(self, points_m: FloatArray) -> FloatArray:
        """Pixels of the image [...,2] of points before the network's own virtual camera."""
        size_px = np.array(self.network_hw[::-1])
        plane = points_m[..., :2] / np.maximum(points_m[..., 2:], 1e-3)
        return self.to_image(plane * (size_px.max() / size_px) + 0.5)


@dataclass(frozen=True)
class Letterbox(Mapping):
    """Resize an image of one size into the middle of the network's, keeping its aspect.

    Content fills `content_hw` of the network's input from row `top` and column `left`; the rest is
    grey. Make one per camera resolution and keep it.
    """

    image_hw: tuple[int, int]
    network_hw: tuple[int, int]

    def __post_init__(self) -> None:
        if min(*self.image_hw, *self.network_hw) < 1:
            raise ValueError(f'sizes must be positive: {self.image_hw} -> {self.network_hw}')

    @cached_property
    def content_hw(self) -> tuple[int, int]:
        """Size of the resized image inside the network's input."""
        scale = min(self.network_hw[0] / self.image_hw[0], self.network_hw[1] / self.image_hw[1])
        height, width = (max(1, round(size * scale)) for size in self.image_hw)
        return min(height, self.network_hw[0]), min(width, self.network_hw[1])

    @cached_property
    def top(self) -> int:
        """Rows of padding above the content."""
        return (self.network_hw[0] - self.content_hw[0]) // 2

    @cached_property
    def left(self) -> int:
        """Columns of padding left of the content."""
        return (self.network_hw[1] - self.content_hw[1]) // 2

    @cached_property
    def scale_xy(self) -> FloatArray:
        """Network pixels per image pixel [2]; the two differ by the rounding of `content_hw`."""
        (height, width), (h, w) = self.image_hw, self.content_hw
        return np.array([w / width, h / height])

    @cached_property
    def _halves(self) -> list[ImageArray]:
        """Room for the image at a half, a quarter, ... of its size."""
        (height, width), scale = self.image_hw, min(self.scale_xy)
        halves = []
        # Linear interpolation reads 2x2 pixels: below one half it would skip some, and alias.
        while scale < 0.5 and height % 2 == width % 2 == 0:
            height, width, scale = height // 2, width // 2, scale * 2
            halves.append(np.empty((height, width, 3), np.uint8))
        return halves

    def buffer(self) -> ImageArray:
        """A network input [1,H,W,3] whose padding is filled already."""
        return np.full((1, *self.network_hw, 3), PADDING_VALUE, dtype=np.uint8)

    def apply(
        self, image: ImageArray, buffer: ImageArray, channel_order: ChannelOrder = 'rgb'
    ) -> None:
        """Resize image [h,w,3] into the content of `buffer`, which stays RGB; nothing is copied.

        A large image is halved first, by the mean of 2x2 pixels, until linear interpolation reads
        all of it. Not for two threads at once. Raises ValueError where the image is not uint8
        [h,w,3] of this letterbox's size.
        """
        if image.shape != (*self.image_hw, 3) or image.dtype != np.uint8:
            raise ValueError(
                f'image must be uint8 {(*self.image_hw, 3)}, got {image.dtype} {image.shape}'
            )
        h, w = self.content_hw
        content = buffer[0, self.top : self.top + h, self.left : self.left + w]
        for half in self._halves:
            cv2.resize(image, half.shape[1::-1], dst=half, interpolation=cv2.INTER_AREA)
            image = half
        odd = w < image.shape[1] / 2 or h < image.shape[0] / 2  # could not be halved
        cv2.resize(
            image, (w, h), dst=content, interpolation=cv2.INTER_AREA if odd else cv2.INTER_LINEAR
        )
        if channel_order == 'bgr':
            cv2.cvtColor(content, cv2.COLOR_BGR2RGB, dst=content)

    @cached_property
    def _from_network(self) -> tuple[FloatArray, FloatArray]:  # type: ignore[override]
        corner = np.array([self.left, self.top])
        return np.array(self.network_hw[::-1]) / self.scale_xy, -corner / self.scale_xy - 0.5

    def to_network(self, points_px: FloatArray) -> FloatArray:
        """Points normalised to the network's input [...,2] of pixels of the image."""
        size = np.array(self.network_hw[::-1])
        offset = np.array([self.left, self.top])
        return np.asarray(((points_px + 0.5) * self.scale_xy + offset) / size)

    def boxes_to_network(self, boxes_xyxy_px: FloatArray) -> FloatArray:
        """Normalised boxes_cxcywh [...,4] of boxes in pixels of the image."""
        corners = self.to_network(boxes_xyxy_px.reshape(*boxes_xyxy_px.shape[:-1], 2, 2))
        low, high = corners[..., 0, :], corners[..., 1, :]
        return np.concatenate([(low + high) / 2, high - low], axis=-1)

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """[3,3]: homogeneous pixels of the image to pixels of the network's input."""
        sx, sy = self.scale_xy
        left, top = self.left + (sx - 1) / 2, self.top + (sy - 1) / 2
        return np.array([[sx, 0, left], [0, sy, top], [0, 0, 1]])


@dataclass(frozen=True)
class Closeup(Mapping):
    """The surroundings of a box, enlarged or reduced so that it fills its part of a window.

    The window lies in an input of `network_hw` pixels, from row and column `corner_px` on. The
    box gets into its middle, its longer side becomes `side_px`; beyond the image all is grey.
    """

    image_hw: tuple[int, int]
    box_xyxy_px: FloatArray  # [4]
    network_hw: tuple[int, int]
    corner_px: tuple[int, int]
    window_hw: tuple[int, int]
    side_px: float

    @classmethod
    def about(
        cls,
        box_xyxy_px: FloatArray,
        image_hw: tuple[int, int],
        network_hw: tuple[int, int],
        corner_px: tuple[int, int],
        window_hw: tuple[int, int],
        part: float = HAND_IN_WINDOW,
    ) -> Closeup:
        """The box's longer side becomes `part` of the window's."""
        side_px = part * min(window_hw)
        return cls(image_hw, box_xyxy_px, network_hw, corner_px, window_hw, side_px)

    @cached_property
    def scale(self) -> float:
        """Pixels of the network's input a pixel of the image."""
        low, high = self.box_xyxy_px[:2], self.box_xyxy_px[2:]
        return self.side_px / max(float((high - low).max()), 1.0)

    @cached_property
    def _offset(self) -> FloatArray:
        """Where the image's corner gets to, in pixels of the whole input [2]."""
        middle = np.array(self.corner_px[::-1]) + np.array(self.window_hw[::-1]) / 2
        centre = (self.box_xyxy_px[:2] + self.box_xyxy_px[2:]) / 2
        return np.asarray(middle - self.scale * (centre + 0.5))

    @cached_property
    def _from_network(self) -> tuple[FloatArray, FloatArray]:  # type: ignore[override]
        size = np.array(self.network_hw[::-1])
        return size / self.scale, -self._offset / self.scale - 0.5

    def apply(
        self, image: ImageArray, buffer: ImageArray, channel_order: ChannelOrder = 'rgb'
    ) -> None:
        """Fill the window `buffer` [1,h,w,3] from the image [H,W,3], as RGB.

        What is reduced to less than half is halved first, as in a letterbox.
        """
        height, width = self.window_hw
        shift = self._offset - np.array(self.corner_px[::-1])
        low = np.floor(-shift / self.scale).astype(int) - 2  # the image's part that is seen
        high = np.ceil((np.array([width, height]) - shift) / self.scale).astype(int) + 2
        size = np.array(self.image_hw[::-1])
        low = np.minimum(np.maximum(low, 0), size - 1)
        high = np.maximum(np.minimum(high, size), low + 1)
        part = image[low[1] : high[1], low[0] : high[0]]
        pixels = 1  # of the image that become one of `part`, each way
        while 2 * pixels * self.scale <= 1 and 2 * pixels <= min(high - low):
            pixels *= 2
        if pixels > 1:
            width_part, height_part = ((high - low) // pixels).tolist()
            part = cv2.resize(
                part[: height_part * pixels, : width_part * pixels], (width_part, height_part),
                interpolation=cv2.INTER_AREA,
            )  # fmt: skip
        # Middle of a pixel of `part` -> middle of one of the window.
        scale = self.scale * pixels
        start = self.scale * low + shift + (scale - 1) / 2
        matrix = np.array([[scale, 0, start[0]], [0, scale, start[1]]])
        cv2.warpAffine(
            part, matrix, (width, height), dst=buffer[0], flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(PADDING_VALUE,) * 3,
        )  # fmt: skip
        if channel_order == 'bgr':
            cv2.cvtColor(buffer[0], cv2.COLOR_BGR2RGB, dst=buffer[0])
