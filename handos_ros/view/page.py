"""A recording as one HTML file: pictures, meshes in 3D and plots, without a server or a network.

`assets/page.html` and `assets/page.js` are the page; this puts the frames into it as JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handos_model.draw import MESH_COLOURS
from handos_model.errors import UserError
from handos_model.types import ROOT_JOINT, SKELETON_EDGES, Camera, FloatArray, Hand, ImageArray
from handos_ros.view.frames import ViewFrame

ASSETS = Path(__file__).resolve().parents[1] / 'assets'
VERTEX_UNIT_M = 1e-5  # vertices are whole numbers of it, from the root joint
FARTHEST_VERTEX_M = 0.32  # from the root joint, of what 16 bits hold


@dataclass(frozen=True)
class PageConfig:
    """How much of a recording goes into the page; a minute of video is about 20 MB."""

    widest_px: int = 640
    jpeg_quality: int = 80
    most_frames: int = 1800

    def __post_init__(self) -> None:
        if self.widest_px < 16 or self.most_frames < 1 or not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f'no page can be made with {self}')


def write_page(
    frames: Iterable[ViewFrame], path: Path, title: str, config: PageConfig | None = None
) -> int:
    """Write the page; the number of frames on it. Raises UserError where there is none.

    A recording of more frames than the page takes is cut off there.
    """
    config = config or PageConfig()
    shown: list[dict[str, Any]] = []
    camera: Camera | None = None
    triangles = np.zeros((0, 3), np.int64)
    farthest_m, model = 0.5, ''
    for frame in frames:
        if len(shown) == config.most_frames:
            break
        shown.append(frame_to_json(frame, config))
        camera = camera or frame.camera
        triangles = triangles if frame.triangles is None else frame.triangles
        model = frame.model
        farthest_m = max([farthest_m, *(float(hand.joints_m[:, 2].max()) for hand in frame.hands)])
    if not shown:
        raise UserError(f'{title} holds no frame with hands: add them with `handos bag`')
    recording = {
        'title': title,
        'model': model,
        'camera': None if camera is None else camera_to_json(camera),
        'backdrop_m': 1.3 * farthest_m,
        'triangles': encode(triangles.astype('<u2')),
        'edges': SKELETON_EDGES,
        'colours': MESH_COLOURS,
        'vertex_unit_m': VERTEX_UNIT_M,
        'frames': shown,
    }
    # A recording is not trusted: no text in it may end the script that carries it.
    data = json.dumps(recording, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
    page = (ASSETS / 'page.html').read_text()
    page = page.replace('@SCRIPT@', (ASSETS / 'page.js').read_text()).replace('@DATA@', data)
    path.write_text(page, encoding='utf-8')
    return len(shown)


def frame_to_json(frame: ViewFrame, config: PageConfig) -> dict[str, Any]:
    """What the page shows of a frame."""
    return {
        'stamp_s': frame.stamp_ns / 1e9,
        'age_ms': round(1e3 * frame.age_s, 1),
        'image': None if frame.image_rgb is None else encode_jpeg(frame.image_rgb, config),
        'hands': [hand_to_json(hand) for hand in frame.hands if np.isfinite(hand.joints_m).all()],
    }


def hand_to_json(hand: Hand) -> dict[str, Any]:
    """A hand; its mesh as 16-bit numbers, or empty where it has none or is no hand's size."""
    offsets_m = hand.vertices_m - hand.joints_m[ROOT_JOINT]
    whole = bool(np.all(np.abs(offsets_m) < FARTHEST_VERTEX_M))
    vertices = np.round(offsets_m / VERTEX_UNIT_M) if whole else np.zeros((0, 3))
    return {
        'id': hand.id,
        'side': hand.side,
        'score': round(float(hand.score), 3),
        'distance_m': round(hand.distance_m, 4),
        'scale': hand.scale_source.name.lower(),
        'joints_m': rounded(hand.joints_m, 4),
        'joints_px': rounded(np.nan_to_num(hand.joints_px), 1),
        'vertices': encode(vertices.astype('<i2')),
    }


def camera_to_json(camera: Camera) -> dict[str, float]:
    matrix = camera.matrix_px
    return {
        'width': camera.width,
        'height': camera.height,
        'fx': float(matrix[0, 0]),
        'fy': float(matrix[1, 1]),
        'cx': float(matrix[0, 2]),
        'cy': float(matrix[1, 2]),
    }


def rounded(values: FloatArray, digits: int) -> list[Any]:
    listed: list[Any] = np.round(values.astype(np.float64), digits).tolist()
    return listed


def encode(values: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def encode_jpeg(image_rgb: ImageArray, config: PageConfig) -> str:
    height, width = image_rgb.shape[:2]
    if width > config.widest_px:
        size = (config.widest_px, max(1, round(height * config.widest_px / width)))
        image_rgb = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality]
    _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), quality)
    return 'data:image/jpeg;base64,' + base64.b64encode(jpeg.tobytes()).decode()
