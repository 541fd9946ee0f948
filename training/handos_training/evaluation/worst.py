"""A sheet of the worst: the pictures that say most about a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from handos_model.draw import draw_hands
from handos_model.errors import UserError
from handos_model.types import Camera, Hand
from handos_training.data.tiles import Image, tiled


class WorstSheet:
    """Overlays of hands: the worst `limit` of them, the worst first.

    `faces` [F,3] are those of a right hand.
    """

    def __init__(
        self,
        faces: npt.NDArray[np.int64],
        *,
        limit: int = 48,
        columns: int = 8,
        tile_px: int = 320,
    ) -> None:
        self.faces, self.limit, self.columns, self.tile_px = faces, limit, columns, tile_px
        self.tiles: list[Image] = []
        self.badness: list[float] = []

    def add(self, image_bgr: Image, hands: Sequence[Hand], badness: float) -> None:
        """Take in an image [H,W,3] and what was found in it; the larger `badness`, the worse."""
        if len(self.tiles) >= self.limit:
            least = int(np.argmin(self.badness))
            if badness <= self.badness[least]:
                return
            del self.tiles[least], self.badness[least]
        self.badness.append(badness)
        camera = Camera.uncalibrated(image_bgr.shape[1], image_bgr.shape[0])
        drawn = draw_hands(image_bgr[..., ::-1], hands, camera, self.faces)[..., ::-1]
        scale = self.tile_px / max(drawn.shape[:2])
        drawn = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tile = np.zeros((self.tile_px, self.tile_px, 3), np.uint8)
        tile[: drawn.shape[0], : drawn.shape[1]] = drawn
        self.tiles.append(tile)

    def write(self, path: Path) -> None:
        """Write the picture; nothing where no image was added. Raises UserError."""
        if not self.tiles:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        worst_first = [self.tiles[i] for i in np.argsort(self.badness)[::-1]]
        if not cv2.imwrite(str(path), tiled(worst_first, self.columns)):
            raise UserError(f'{path} cannot be written: give a name that ends in .jpg or .png')
