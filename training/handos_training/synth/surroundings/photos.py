"""A folder of the user's own photographs as backgrounds, read when needed and kept in memory."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from handos_model.errors import UserError
from handos_training.synth.sampling import Sampler

SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.webp', '.bmp'})
LONGER_SIDE_PX = 960
KEPT = 256  # photographs of at most 2 MB each


class PhotoFolder:
    """Random crops, scalings and mirrorings of every photograph under a folder."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in SUFFIXES)
        if not self.paths:
            known = ', '.join(sorted(SUFFIXES))
            raise UserError(f'{folder}: no photographs ({known}); point --backgrounds at some')

    def crops(self, sampler: Sampler, count: int, height: int, width: int) -> Tensor:
        """[count,3,height,width] linear light; the brightness is the photograph's."""
        index = sampler.integers(len(self.paths), count).tolist()
        area = sampler.uniform(0.4, 1, count).tolist()
        place = sampler.uniform(0, 1, count, 2).tolist()
        mirrored = sampler.coin(0.5, count).tolist()
        crops = np.empty((count, height, width, 3), np.uint8)
        for i in range(count):
            photo = _load(self.paths[index[i]])
            h, w = photo.shape[:2]
            scale = min(h / height, w / width) * area[i]
            rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
            top, left = int(place[i][0] * (h - rows)), int(place[i][1] * (w - columns))
            crop = photo[top : top + rows, left : left + columns]
            shrink = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
            cv2.resize(crop, (width, height), dst=crops[i], interpolation=shrink)
            if mirrored[i]:
                crops[i] = crops[i, :, ::-1].copy()
        images = torch.from_numpy(crops).to(sampler.device).permute(0, 3, 1, 2)
        # The exponent 2.2 between its neighbours 2 and 3, which cost no power function.
        encoded = images.float().div_(255)
        square = encoded.square()
        return square.mul_(encoded.mul_(0.2).add_(0.8))


@lru_cache(maxsize=KEPT)
def _load(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    """[H,W,3] uint8 RGB, shrunk; a file that is no image is named in the error."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f'{path}: cannot be read as an image; remove it from the backgrounds')
    scale = LONGER_SIDE_PX / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., ::-1])
