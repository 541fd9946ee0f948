"""`handos video`: hands in a video file, tracked from frame to frame."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from handos_model.draw import draw_hands
from handos_model.errors import UserError
from handos_model.following import FollowConfig, HandFollower
from handos_model.hand.model import HandModel
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.tracking.tracker import Tracker
from handos_model.types import Camera, Hand, ImageArray, TrackState
from handos_ros.commands.options import (
    BackendOption,
    CameraInfoOption,
    ManoOption,
    ScoreOption,
    VerticesOption,
    WeightsOption,
)
from handos_ros.images.camera_files import read_camera_file
from handos_ros.messages.results import hand_to_json


def video(
    file: Annotated[Path, typer.Argument(help='A video that OpenCV reads.')],
    overlay: Annotated[Path | None, typer.Option(help='Drawn video, .mp4 (MPEG-4).')] = None,
    json: Annotated[Path | None, typer.Option(help='Hands, one line of JSON a frame.')] = None,
    camera_info: CameraInfoOption = None,
    weights: WeightsOption = 'nano',
    mano: ManoOption = None,
    backend: BackendOption = 'auto',
    follow: Annotated[
        int, typer.Option(help='Search the whole image once in so many frames; 0 = in each.')
    ] = 0,
    track: Annotated[bool, typer.Option(help='Ids and smoothing over time.')] = True,
    vertices: VerticesOption = False,
    score: ScoreOption = 0.3,
    max_hands: Annotated[int, typer.Option(help='Most hands of a frame.')] = 4,
    max_frames: Annotated[int, typer.Option(help='Stop after so many; 0 = all.')] = 0,
) -> None:
    """Find and follow the hands of a video; draw them, or write them as JSON lines."""
    with ExitStack() as stack:
        source = stack.enter_context(VideoSource(file))
        camera = read_camera_file(camera_info) if camera_info else source.guessed_camera()
        config = PipelineConfig(score_threshold=score, max_hands=max_hands)
        pipeline = HandPipeline(weights, backend, config, hand_model=HandModel.of(mano))
        find: Callable[..., list[Hand]] = pipeline
        if follow:
            find = HandFollower(pipeline, FollowConfig(follow))
        tracker = Tracker() if track else None
        lines = stack.enter_context(json.open('w')) if json else None
        writer = stack.enter_context(VideoSink(overlay, source)) if overlay else None
        number = seen = 0
        for number, (picture, time_s) in enumerate(source.frames(max_frames), start=1):
            hands = find(picture, camera)
            if tracker:
                hands = tracker.update(hands, time_s)
            present = [hand for hand in hands if hand.state is not TrackState.LOST]
            seen += bool(present)
            if lines:
                found = [hand_to_json(hand, i, vertices) for i, hand in enumerate(present)]
                entry = {'frame': number - 1, 'time_s': round(time_s, 4), 'hands': found}
                lines.write(json_format.dumps(entry, separators=(',', ':')) + '\n')
            if writer:
                writer.write(draw_hands(picture, hands, camera, pipeline.faces))
    print(f'{file}: {number} frames, hands in {seen} ({pipeline.backend})')


class VideoSource:
    """Frames of a video file, RGB, with their times. Raises UserError where it cannot be read."""

    def __init__(self, file: Path) -> None:
        self.file = file
        if not file.is_file():
            raise UserError(f'{file} is not there')
        self._capture = cv2.VideoCapture(str(file))
        if not self._capture.isOpened():
            raise UserError(f'{file} is no video that OpenCV reads: convert it to MP4 or AVI')
        self.width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate if np.isfinite(rate) and 0 < rate <= 1000 else 30.0

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()

    def guessed_camera(self) -> Camera:
        """The camera of a video without a calibration."""
        return Camera.uncalibrated(self.width, self.height)

    def frames(self, most: int) -> Iterator[tuple[ImageArray, float]]:
        """(picture, seconds since the first), at most `most` of them (0: all)."""
        number = 0
        while most == 0 or number < most:
            good, picture = self._capture.read()
            if not good:
                return
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), number / self.rate_hz
            number += 1


class VideoSink:
    """An MPEG-4 video of a source's size and rate."""

    def __init__(self, path: Path, source: VideoSource) -> None:
        if path.suffix.lower() != '.mp4':
            raise UserError(f'{path}: name the drawn video .mp4')
        path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*'mp4v')
        size = (source.width, source.height)
        self._writer: Any = cv2.VideoWriter(str(path), code, source.rate_hz, size)
        if not self._writer.isOpened():
            raise UserError(f'{path} cannot be written: this OpenCV has no MPEG-4 encoder')

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.release()

    def write(self, picture: ImageArray) -> None:
        """Append one RGB picture."""
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
