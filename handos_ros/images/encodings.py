"""Pixels of sensor_msgs images: standard encodings to RGB, and depth to metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from handos_model.types import FloatArray, ImageArray

MAX_PIXELS = 64_000_000


class ImageError(ValueError):
    """An image that cannot be used; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Encoding:
    """How pixels lie in memory: `rows` of H x W give [rows(H), W, channels] of `dtype`."""

    dtype: str
    channels: int
    to_rgb: Callable[[Any], Any]  # of the native-endian array, without padding
    rows_per_two: int = 2  # rows in memory for two rows of the image: 3 for NV12 and NV21


def _cv(code: int) -> Callable[[Any], Any]:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _high_byte(to_rgb: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda pixels: to_rgb((pixels >> 8).astype(np.uint8))


BAYER = {
    'rggb': cv2.COLOR_BayerRGGB2RGB,
    'bggr': cv2.COLOR_BayerBGGR2RGB,
    'gbrg': cv2.COLOR_BayerGBRG2RGB,
    'grbg': cv2.COLOR_BayerGRBG2RGB,
}
GREY = _cv(cv2.COLOR_GRAY2RGB)
UYVY = Encoding('uint8', 2, _cv(cv2.COLOR_YUV2RGB_UYVY))
YUY2 = Encoding('uint8', 2, _cv(cv2.COLOR_YUV2RGB_YUY2))

ENCODINGS: dict[str, Encoding] = {
    'rgb8': Encoding('uint8', 3, lambda pixels: pixels),
    'bgr8': Encoding('uint8', 3, _cv(cv2.COLOR_BGR2RGB)),
    '8UC3': Encoding('uint8', 3, _cv(cv2.COLOR_BGR2RGB)),  # OpenCV's order
    'rgba8': Encoding('uint8', 4, _cv(cv2.COLOR_RGBA2RGB)),
    'bgra8': Encoding('uint8', 4, _cv(cv2.COLOR_BGRA2RGB)),
    'mono8': Encoding('uint8', 1, GREY),
    '8UC1': Encoding('uint8', 1, GREY),
    'mono16': Encoding('uint16', 1, _high_byte(GREY)),
    **{f'bayer_{order}8': Encoding('uint8', 1, _cv(code)) for order, code in BAYER.items()},
    **{
        f'bayer_{order}16': Encoding('uint16', 1, _high_byte(_cv(code)))
        for order, code in BAYER.items()
    },
    'yuv422': UYVY,
    'uyvy': UYVY,
    'yuv422_yuy2': YUY2,
    'yuyv': YUY2,
    'nv12': Encoding('uint8', 1, _cv(cv2.COLOR_YUV2RGB_NV12), rows_per_two=3),
    'nv21': Encoding('uint8', 1, _cv(cv2.COLOR_YUV2RGB_NV21), rows_per_two=3),
}
DEPTH_ENCODINGS = {'16UC1': 'uint16', 'mono16': 'uint16', '32FC1': 'float32'}


def decode_rgb(
    data: Any,
    *,
    encoding: str,
    width: int,
    height: int,
    step: int,
    is_bigendian: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> ImageArray:
    """Pixels [H,W,3], uint8 RGB; a view into `data` where nothing has to be converted.

    `data` is a buffer of step x rows bytes, rows padded to `step`. Raises ImageError.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise ImageError(
            f'encoding {encoding!r} is not supported; set the camera to one of '
            f'{", ".join(ENCODINGS)}'
        )
    if (layout.channels == 2 or layout.rows_per_two == 3) and width % 2:
        raise ImageError(f'{encoding} needs an even width, got {width}')
    if layout.rows_per_two == 3 and height % 2:
        raise ImageError(f'{encoding} needs an even height, got {height}')
    rows = height * layout.rows_per_two // 2
    _check_size(width, height, max_pixels)
    pixels = _rows(data, layout.dtype, layout.channels, width, rows, step, is_bigendian)
    rgb: ImageArray = layout.to_rgb(pixels)
    return rgb


def decode_depth_m(
    data: Any,
    *,
    encoding: str,
    width: int,
    height: int,
    step: int,
    is_bigendian: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> FloatArray:
    """Depth [H,W] in metres, float32, NaN where unknown.

    REP-118: unknown is 0 in millimetres (16UC1) and NaN in metres (32FC1).
    Raises ImageError.
    """
    dtype = DEPTH_ENCODINGS.get(encoding)
    if dtype is None:
        raise ImageError(
            f'depth encoding {encoding!r} is not supported; use 16UC1 (mm) or 32FC1 (m)'
        )
    _check_size(width, height, max_pixels)
    depth = _rows(data, dtype, 1, width, height, step, is_bigendian)
    depth_m: FloatArray = depth.astype(np.float32)
    if dtype == 'uint16':
        depth_m *= np.float32(0.001)
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return depth_m


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise ImageError(f'image is {width}x{height}: the camera sends an empty image')
    if width * height > max_pixels:
        raise ImageError(
            f'image of {width}x{height} is above the limit of {max_pixels} pixels: lower the '
            "camera's resolution or raise the parameter max_image_pixels"
        )


def _rows(
    data: Any, dtype: str, channels: int, width: int, rows: int, step: int, is_bigendian: bool
) -> Any:
    item = np.dtype(dtype).newbyteorder('>' if is_bigendian else '<')
    row_bytes = width * channels * item.itemsize
    if step < row_bytes:
        raise ImageError(
            f'step is {step} bytes but a row of {width} pixels has {row_bytes}: the camera '
            'driver fills the message wrongly'
        )
    raw = np.frombuffer(data, np.uint8)
    if len(raw) != step * rows:
        raise ImageError(
            f'data has {len(raw)} bytes but step x rows is {step} x {rows} = {step * rows}: the '
            'image was cut or the camera driver fills the message wrongly'
        )
    pixels = raw.reshape(rows, step)[:, :row_bytes]
    pixels = np.ascontiguousarray(pixels).view(item).astype(dtype, copy=False)
    return pixels.reshape(rows, width, channels) if channels > 1 else pixels
