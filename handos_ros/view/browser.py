"""Hands in the browser: meshes in 3D, the image with its overlay, ages and rates (viser).

viser serves one page without any other address in it; of its functions, `request_share_url` alone
would reach out, and it is never called.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import cv2
import numpy as np

from handos_model.draw import MESH_COLOURS
from handos_model.errors import UserError
from handos_model.types import SKELETON_EDGES, Camera, FloatArray, Hand, ImageArray
from handos_ros.view.frames import ViewFrame

EDGES = np.array(SKELETON_EDGES)
BONE_WIDTH_M = 0.002
BONE_COLOUR = (250, 250, 250)
LABEL_OFFSET_M = np.array([0.0, 0.03, 0.0])  # below the wrist; y points down
FRUSTUM_M = 0.015
BLANK = np.zeros((3, 4, 3), np.uint8)
WIDEST_PX = 640  # of the overlay in the browser
RATE_WINDOW = 30  # frames


def import_viser() -> Any:
    """viser. Raises UserError where it is missing."""
    try:
        import viser
    except ModuleNotFoundError as error:
        raise UserError(
            f'{error.name} is missing, which shows hands in the browser as they come: '
            "pip install 'handos-ros[view]', or write a recording as a page with --html"
        ) from error
    return viser


class HandViewer:
    """One page that shows the newest frame to every browser that is connected."""

    def __init__(self, host: str, port: int) -> None:
        self._server = import_viser().ViserServer(host, port, label='HandOS', verbose=False)
        gui = self._server.gui
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        scene = self._server.scene
        scene.set_up_direction('-y')
        scene.world_axes.visible = False
        # A little above and behind the camera, looking where it looks.
        self._server.initial_camera.position = (0.12, -0.1, 0.0)
        self._server.initial_camera.look_at = (0.0, 0.0, 0.45)
        self._overlay = gui.add_image(BLANK, format='jpeg', visible=False)
        self._text = gui.add_markdown('Waiting for the first frame.')
        self._backdrop: _Backdrop | None = None
        self._hands: dict[int, _HandInScene] = {}
        self._stamps_s: deque[float] = deque(maxlen=RATE_WINDOW)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f'http://{self._server.get_host()}:{self._server.get_port()}'

    def show(self, frame: ViewFrame) -> None:
        """Replace what is shown."""
        self._stamps_s.append(frame.stamp_ns / 1e9)
        with self._server.atomic():
            self._show_hands(frame)
            self._show_image(frame)
            self._text.content = describe(frame, list(self._stamps_s))

    def close(self) -> None:
        self._server.stop()

    def _show_hands(self, frame: ViewFrame) -> None:
        shown = {
            hand.id if hand.id >= 0 else -1 - index: hand for index, hand in enumerate(frame.hands)
        }
        for number in self._hands.keys() - shown.keys():
            self._hands.pop(number).remove()
        for number, hand in shown.items():
            known = self._hands.get(number)
            if known is not None and known.look == _look(hand, frame):
                known.update(hand)
                continue
            if known is not None:  # its side changed, or its triangles came
                known.remove()
            self._hands[number] = _HandInScene(self._server.scene, number, hand, frame)

    def _show_image(self, frame: ViewFrame) -> None:
        overlay_rgb = frame.overlay_rgb()
        self._overlay.visible = overlay_rgb is not None
        if overlay_rgb is None or frame.image_rgb is None or frame.camera is None:
            return
        self._overlay.image = _shrink(overlay_rgb)
        farthest_m = max((hand.joints_m[:, 2].max() for hand in frame.hands), default=0.5)
        depth_m = max(1.0, float(np.ceil(2.5 * farthest_m)) / 2)
        if self._backdrop is None or self._backdrop.depth_m < depth_m:
            if self._backdrop is not None:
                self._backdrop.remove()
            self._backdrop = _Backdrop(self._server.scene, frame.camera, depth_m)
        self._backdrop.update(_shrink(frame.image_rgb))


class _Backdrop:
    """The camera's image behind the hands, where its rays meet the depth, and their frustum."""

    def __init__(self, scene: Any, camera: Camera, depth_m: float) -> None:
        self.depth_m = depth_m
        focal_px, centre_px = np.diag(camera.matrix_px)[:2], camera.matrix_px[:2, 2]
        size_px = np.array([camera.width, camera.height])
        width_m, height_m = (size_px / focal_px * depth_m).tolist()
        x_m, y_m = (((size_px - 1) / 2 - centre_px) / focal_px * depth_m).tolist()
        self._picture = scene.add_image(
            '/image', BLANK, width_m, height_m, format='jpeg', position=(x_m, y_m, depth_m)
        )
        self._frustum = scene.add_camera_frustum(
            '/camera',
            fov=2 * float(np.arctan(camera.height / 2 / focal_px[1])),
            aspect=float(focal_px[1] / focal_px[0] * camera.width / camera.height),
            scale=FRUSTUM_M,
            thickness=0.001,
            color=(120, 120, 130),
        )

    def update(self, image_rgb: ImageArray) -> None:
        self._picture.image = image_rgb

    def remove(self) -> None:
        self._picture.remove()
        self._frustum.remove()


class _HandInScene:
    """Mesh, skeleton and label of one hand."""

    def __init__(self, scene: Any, number: int, hand: Hand, frame: ViewFrame) -> None:
        self.look = _look(hand, frame)
        name = f'/hands/{number}'
        colour = MESH_COLOURS[hand.side]
        self._mesh: Any = None
        if frame.triangles is not None and len(hand.vertices_m):
            triangles = frame.triangles[:, ::-1] if hand.is_left else frame.triangles
            self._mesh = scene.add_mesh_simple(
                f'{name}/mesh', _float32(hand.vertices_m), triangles.astype(np.uint32),
                color=colour, side='double',
            )  # fmt: skip
        self._bones = scene.add_line_segments(
            f'{name}/bones', _bones(hand), BONE_COLOUR, thickness=BONE_WIDTH_M
        )
        self._label = scene.add_label(f'{name}/label', _label(hand))
        self._label.position = hand.joints_m[0] + LABEL_OFFSET_M

    def update(self, hand: Hand) -> None:
        if self._mesh is not None:
            self._mesh.vertices = _float32(hand.vertices_m)
        self._bones.points = _bones(hand)
        self._label.text = _label(hand)
        self._label.position = hand.joints_m[0] + LABEL_OFFSET_M

    def remove(self) -> None:
        for handle in (self._mesh, self._bones, self._label):
            if handle is not None:
                handle.remove()


def describe(frame: ViewFrame, stamps_s: list[float]) -> str:
    """Rate, age and hands in Markdown; `stamps_s` are those of the last frames."""
    span_s = stamps_s[-1] - stamps_s[0]
    rate_hz = (len(stamps_s) - 1) / span_s if span_s > 0 else 0.0
    lines = [
        f'**{rate_hz:.1f} Hz**, age {frame.age_s * 1e3:.0f} ms, {frame.model}, '
        f'frame `{frame.frame_id}`',
        '',
    ]
    if not frame.hands:
        lines.append('No hands.')
    else:
        lines += ['| hand | side | score | distance | scale |', '|---|---|---|---|---|']
    for hand in frame.hands:
        lines.append(
            f'| {_label(hand)} | {100 * hand.side_probability:.0f} % | {hand.score:.2f} '
            f'| {hand.distance_m:.3f} m | {hand.scale_source.name.lower()} |'
        )
    return '\n'.join(lines)


def _look(hand: Hand, frame: ViewFrame) -> tuple[str, bool]:
    """What of a hand cannot be changed once it stands in the scene."""
    return hand.side, frame.triangles is not None and len(hand.vertices_m) > 0


def _label(hand: Hand) -> str:
    return f'#{hand.id} {hand.side}' if hand.id >= 0 else hand.side


def _bones(hand: Hand) -> FloatArray:
    """Start and end of each bone [20,2,3]."""
    return _float32(hand.joints_m[EDGES])


def _float32(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values, np.float32)


def _shrink(image_rgb: ImageArray) -> ImageArray:
    height, width = image_rgb.shape[:2]
    if width <= WIDEST_PX:
        return image_rgb
    size = (WIDEST_PX, max(1, round(height * WIDEST_PX / width)))
    return np.asarray(cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
