"""Hands drawn into their image: shaded mesh, skeleton, box, side and distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from handos_model.geometry.placement import boundary_edges, vertex_normals
from handos_model.geometry.projection import project
from handos_model.types import (
    SKELETON_EDGES,
    Camera,
    FloatArray,
    Hand,
    ImageArray,
    Side,
    TrackState,
)

# RGB. Skin of the mesh by side; skeleton by finger, thumb to little, wrist joint first.
MESH_COLOURS: dict[Side, tuple[int, int, int]] = {
    'right': (244, 160, 98),
    'left': (104, 170, 236),
}
FINGER_COLOURS = ((235, 87, 87), (242, 165, 60), (76, 187, 112), (64, 156, 255), (168, 110, 230))
WRIST_COLOUR = (245, 245, 245)
_LIGHT = np.array([-0.35, -0.6, -0.72])  # towards the light: over the camera's left shoulder
_SHIFT = 4  # OpenCV's fixed point: 1/16 px
_FONT = cv2.FONT_HERSHEY_DUPLEX


@dataclass(frozen=True)
class OverlayStyle:
    """What to draw, and how strongly."""

    mesh_alpha: float = 0.75  # 0 leaves the mesh away
    skeleton: bool = True
    labels: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.mesh_alpha <= 1:
            raise ValueError(f'mesh_alpha must be within 0 and 1, got {self.mesh_alpha}')


def draw_hands(
    image_rgb: ImageArray,
    hands: Sequence[Hand],
    camera: Camera,
    faces: npt.NDArray[np.int64],
    style: OverlayStyle | None = None,
) -> ImageArray:
    """A copy of the image [H,W,3] with `hands` on it, the farthest first; lost hands are left out.

    `faces` [F,3] are those of a right hand; `camera` is the image's own.
    """
    style = style or OverlayStyle()
    canvas: ImageArray = np.array(image_rgb, order='C')
    present = [hand for hand in hands if hand.state is not TrackState.LOST]
    for hand in sorted(present, key=lambda hand: -hand.distance_m):
        faded = 0.5 if hand.state is TrackState.COASTING else 1.0
        if style.mesh_alpha > 0:
            draw_mesh(canvas, hand, camera, faces, style.mesh_alpha * faded)
        if style.skeleton:
            draw_skeleton(canvas, hand)
        if style.labels:
            draw_label(canvas, hand)
    return canvas


def draw_mesh(
    canvas: ImageArray,
    hand: Hand,
    camera: Camera,
    faces: npt.NDArray[np.int64],
    alpha: float,
) -> None:
    """Blend the shaded mesh of one hand into `canvas`: front faces, the farthest first."""
    vertices_m, closed = close_wrist(hand.vertices_m, faces)
    pixels = project(vertices_m, camera)
    outward = closed if hand.side == 'right' else closed[:, ::-1]
    corners = pixels[outward]  # [F,3,2]
    limit = 4.0 * max(canvas.shape)
    usable = np.isfinite(corners).all((1, 2)) & (np.abs(np.nan_to_num(corners)) < limit).all(
        (1, 2)
    )
    outward, corners = outward[usable], corners[usable]
    ab, ac = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    # Outward faces that look at the camera run clockwise in an image whose y points down.
    front = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0] < 0
    outward, corners = outward[front], corners[front]
    if len(outward) == 0:
        return
    low = np.clip(np.floor(corners.min((0, 1))).astype(int) - 1, 0, None)
    high = np.minimum(np.ceil(corners.max((0, 1))).astype(int) + 2, canvas.shape[1::-1])
    if (high <= low).any():
        return
    colours = shade(vertices_m, closed, hand.side)[outward].mean(1)  # [F,3]
    order = np.argsort(-vertices_m[outward, 2].mean(1))
    points = np.rint((corners[order] - low) * 2**_SHIFT).astype(np.int32)

    region = canvas[low[1] : high[1], low[0] : high[0]]
    layer = region.copy()
    mask = np.zeros(region.shape[:2], np.uint8)
    # Triangles overlap, so each is painted on its own; this is the one loop over faces.
    for triangle, colour in zip(points, colours[order].tolist(), strict=True):
        cv2.fillConvexPoly(layer, triangle, colour, cv2.LINE_8, _SHIFT)
    cv2.fillPoly(mask, list(points), 255, cv2.LINE_AA, _SHIFT)
    weight = cv2.GaussianBlur(mask, (3, 3), 0)[..., None] * np.float32(alpha / 255)
    region[:] = np.rint(region + weight * (layer.astype(np.float32) - region)).astype(np.uint8)


def close_wrist(
    vertices_m: FloatArray, faces: npt.NDArray[np.int64]
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Vertices and faces with a fan over the open wrist, so that no one looks into the hand."""
    rim = boundary_edges(faces)
    if len(rim) == 0:
        return vertices_m, faces
    middle = np.full((len(rim), 1), len(vertices_m))
    vertices_m = np.concatenate([vertices_m, vertices_m[rim[:, 0]].mean(0, keepdims=True)])
    return vertices_m, np.concatenate([faces, np.concatenate([rim[:, ::-1], middle], 1)])


def shade(vertices_m: FloatArray, faces: npt.NDArray[np.int64], side: Side) -> FloatArray:
    """RGB of each vertex [V,3]: Lambert, a little gloss, darker where the surface turns away."""
    normals = vertex_normals(vertices_m, faces)
    if side == 'left':
        normals = -normals
    light = _LIGHT / np.linalg.norm(_LIGHT)
    towards_camera = -vertices_m / np.linalg.norm(vertices_m, axis=-1, keepdims=True)
    lambert = np.clip(normals @ light, 0, 1)
    halfway = light + towards_camera
    halfway /= np.linalg.norm(halfway, axis=-1, keepdims=True)
    gloss = np.clip((normals * halfway).sum(-1), 0, 1) ** 24
    facing = np.clip((normals * towards_camera).sum(-1), 0, 1)
    base = np.array(MESH_COLOURS[side], dtype=np.float64)
    lit = base * (0.46 + 0.6 * lambert)[:, None] * (0.72 + 0.28 * facing)[:, None]
    colours: FloatArray = np.clip(lit + 70 * gloss[:, None], 0, 255)
    return colours


def draw_skeleton(canvas: ImageArray, hand: Hand) -> None:
    """Bones and joints by finger; what the network takes for hidden is thin and faint."""
    width, height = hand.box_xyxy_px[2:] - hand.box_xyxy_px[:2]
    thickness = int(np.clip(max(width, height) / 90, 1, 6))
    joints = hand.joints_px
    limit = 4.0 * max(canvas.shape)
    drawable = np.isfinite(joints).all(-1) & (np.abs(np.nan_to_num(joints)) < limit).all(-1)
    points = np.rint(np.nan_to_num(joints) * 2**_SHIFT).astype(np.int64).tolist()
    seen = hand.joint_confidence >= 0.5
    for a, b in SKELETON_EDGES:
        if drawable[a] and drawable[b]:
            colour = FINGER_COLOURS[(b - 1) // 4]
            strength = thickness if seen[b] else 1
            cv2.line(canvas, points[a], points[b], (20, 20, 20), strength + 2, cv2.LINE_AA, _SHIFT)
            cv2.line(canvas, points[a], points[b], colour, strength, cv2.LINE_AA, _SHIFT)
    for joint, point in enumerate(points):
        if drawable[joint]:
            colour = WRIST_COLOUR if joint == 0 else FINGER_COLOURS[(joint - 1) // 4]
            radius = (thickness + 1) << _SHIFT
            outline = (20, 20, 20) if seen[joint] else colour
            inside = colour if seen[joint] else (20, 20, 20)
            cv2.circle(canvas, point, radius, inside, cv2.FILLED, cv2.LINE_AA, _SHIFT)
            cv2.circle(canvas, point, radius, outline, 1, cv2.LINE_AA, _SHIFT)


def draw_label(canvas: ImageArray, hand: Hand) -> None:
    """The box's corners and, above it, id, side with its probability, and distance."""
    colour = MESH_COLOURS[hand.side]
    scale = float(np.clip(max(canvas.shape[:2]) / 1400, 0.4, 1.2))
    line = max(1, round(2 * scale))
    x0, y0, x1, y1 = np.rint(hand.box_xyxy_px).astype(int).tolist()
    arm = max(4, round(0.15 * min(x1 - x0, y1 - y0)))
    for x, y, dx, dy in ((x0, y0, 1, 1), (x1, y0, -1, 1), (x0, y1, 1, -1), (x1, y1, -1, -1)):
        corner = np.array([[x + dx * arm, y], [x, y], [x, y + dy * arm]], np.int32)
        cv2.polylines(canvas, [corner], False, colour, line + 1, cv2.LINE_AA)

    number = f'#{hand.id} ' if hand.id >= 0 else ''
    text = f'{number}{hand.side} {100 * hand.side_probability:.0f}%  {hand.distance_m:.2f} m'
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    pad = round(6 * scale)
    tall = height + below + 2 * pad
    top = y0 - tall - pad if y0 - tall - pad >= 0 else min(y0 + pad, canvas.shape[0] - tall)
    left = int(np.clip(x0, 0, max(0, canvas.shape[1] - width - 2 * pad)))
    top = max(top, 0)
    plate = canvas[top : top + tall, left : left + width + 2 * pad]
    plate[:] = (plate * 0.3).astype(np.uint8)
    plate[:, : max(2, pad // 2)] = colour
    origin = (left + pad + 2, top + pad + height)
    cv2.putText(canvas, text, origin, _FONT, scale, (250, 250, 250), 1, cv2.LINE_AA)
