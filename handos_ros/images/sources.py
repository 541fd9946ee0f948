"""Webcams, video files and folders of images as one stream of frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from handos_model.errors import UserError
from handos_model.types import ImageArray

IMAGE_SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp'}
DEFAULT_RATE_HZ = 30.0


class ImageSource:
    """Frames [H,W,3] uint8 RGB of a webcam ('0', '/dev/video0'), a video file or a folder.

    Raises UserError where there is nothing to read.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.live = source.isdigit() or source.startswith('/dev/')
        path = Path(source)
        self._files: list[Path] = []
        self._capture: cv2.VideoCapture | None = None
        self.rate_hz = DEFAULT_RATE_HZ
        if not self.live and not path.exists():
            raise UserError(f'{source} is no file, folder or camera: check the path')
        if path.is_dir():
            self._files = sorted(
                file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES
            )
            if not self._files:
                raise UserError(f'{source} holds no images ({", ".join(sorted(IMAGE_SUFFIXES))})')
            return
        self._capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
        if not self._capture.isOpened():
            remedy = 'is another program using it?' if self.live else 'is it a video?'
            raise UserError(f'{source} cannot be opened: {remedy}')
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        if 1 <= rate_hz <= 1000:
            self.rate_hz = rate_hz

    def frames(self) -> Iterator[ImageArray]:
        """Every frame once."""
        if self._capture is None:
            for file in self._files:
                bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
                if bgr is None:
                    raise UserError(f'{file} is no image that can be read')
                yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            return
        while True:
            read, bgr = self._capture.read()
            if not read:
                return
            yield cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    def rewind(self) -> None:
        """Begin again with the first frame."""
        if self._capture is not None and not self.live:
            self._capture.release()
            self._capture = cv2.VideoCapture(self.source)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
