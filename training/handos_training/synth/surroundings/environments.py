"""The bundled CC0 panoramas: what lights a scene and may stand behind it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ASSET = Path(__file__).parents[1] / 'assets' / 'environments.npz'
# Radiance, mean luminance 1, as 8-bit codes: code = 255 (log2(radiance + FLOOR) - LOW) / RANGE.
FLOOR = 2.0**-7
LOW_STOPS, RANGE_STOPS = -7.0, 16.0


def encode_radiance(radiance: NDArray[Any]) -> NDArray[np.uint8]:
    """Log codes uint8 of linear radiance [...]; 16 stops, so a step is 4 per cent."""
    stops = np.log2(np.clip(radiance, 0, None) + FLOOR)
    codes = (stops - LOW_STOPS) / RANGE_STOPS * 255
    result: NDArray[np.uint8] = np.clip(np.rint(codes), 0, 255).astype(np.uint8)
    return result


def decode_radiance(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Inverse of `encode_radiance`."""
    stops = codes.astype(np.float32) / 255 * RANGE_STOPS + LOW_STOPS
    return np.clip(np.exp2(stops) - FLOOR, 0, None)


@lru_cache(maxsize=2)
def load_panoramas(path: Path = ASSET) -> Tensor:
    """[E,3,256,512] float32 linear radiance; row 0 looks up, the middle column looks along +z."""
    with np.load(path) as data:
        images = [_decode_jpeg(data[name]) for name in sorted(data)]
    radiance = decode_radiance(np.stack(images))
    return torch.from_numpy(radiance).permute(0, 3, 1, 2).contiguous()


def _decode_jpeg(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H,W,3] RGB."""
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError('environments.npz is damaged: restore it from the repository')
    return np.asarray(image[..., ::-1], dtype=np.uint8)
