"""`handos image`: hands in picture files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from handos_model.draw import draw_hands
from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.types import Camera, Hand, ImageArray
from handos_ros.commands.options import (
    BackendOption,
    CameraInfoOption,
    ManoOption,
    ScoreOption,
    VerticesOption,
    WeightsOption,
)
from handos_ros.images.camera_files import read_camera_file
from handos_ros.messages.results import hand_to_json, write_json


def image(
    files: Annotated[
        list[Path], typer.Argument(help='Pictures: JPEG, PNG and what OpenCV reads.')
    ],
    json: Annotated[Path | None, typer.Option(help='Write the hands here; - prints them.')] = None,
    overlay: Annotated[Path | None, typer.Option(help='Write drawn pictures to here.')] = None,
    camera_info: CameraInfoOption = None,
    weights: WeightsOption = 'nano',
    mano: ManoOption = None,
    backend: BackendOption = 'auto',
    vertices: VerticesOption = False,
    score: ScoreOption = 0.3,
    max_hands: Annotated[int, typer.Option(help='Most hands of a picture.')] = 4,
) -> None:
    """Find the hands in each picture; files that cannot be read are reported and left out."""
    camera = read_camera_file(camera_info) if camera_info else None
    config = PipelineConfig(score_threshold=score, max_hands=max_hands)
    pipeline = HandPipeline(weights, backend, config, hand_model=HandModel.of(mano))
    entries = [_process(pipeline, file, camera, overlay, vertices) for file in files]
    if json is not None:
        write_json(json, entries)
    if str(json) != '-':
        for entry in entries:
            print(_in_words(entry))
    if any('error' in entry for entry in entries):
        raise typer.Exit(1)


def read_picture(file: Path) -> ImageArray:
    """RGB [H,W,3], turned as its EXIF data says. Raises UserError where it is no picture."""
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    except (OSError, cv2.error) as error:
        raise UserError(f'{file} cannot be read: {error}') from None
    if picture is None:
        raise UserError(f'{file} is no picture that OpenCV reads')
    return np.asarray(picture, np.uint8)


def _process(
    pipeline: HandPipeline, file: Path, camera: Camera | None, overlay: Path | None, vertices: bool
) -> dict[str, Any]:
    entry: dict[str, Any] = {'file': str(file)}
    try:
        picture = read_picture(file)
        height, width = picture.shape[:2]
        own_camera = camera or Camera.uncalibrated(width, height)
        hands = pipeline(picture, own_camera)
        if overlay is not None:
            _write_overlay(overlay / file.name, picture, hands, own_camera, pipeline)
    except UserError as error:
        return entry | {'error': str(error)}
    found = [hand_to_json(hand, index, vertices) for index, hand in enumerate(hands)]
    return entry | {'width': width, 'height': height, 'hands': found}


def _write_overlay(
    path: Path, picture: ImageArray, hands: list[Hand], camera: Camera, pipeline: HandPipeline
) -> None:
    drawn = draw_hands(picture, hands, camera, pipeline.faces)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
        raise UserError(f'{path} cannot be written')


def _in_words(entry: dict[str, Any]) -> str:
    if 'error' in entry:
        return f'{entry["file"]}: {entry["error"]}'
    hands = [
        f'{hand["side"]} ({hand["score"]:.2f}) at {np.linalg.norm(hand["translation_m"]):.2f} m'
        for hand in entry['hands']
    ]
    return f'{entry["file"]}: {", ".join(hands) or "no hands"}'
