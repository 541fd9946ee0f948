"""Move, turn, scale or mirror a sample so that its labels stay exact.

Every geometric change of an image is one affine map H of pixels. The camera and the hand follow
from it: H K = K' Q with K' upper triangular and Q orthogonal (RQ decomposition), so K' Q X hits
the same moved pixel that H sends K X to, for every point X. A rotation of the image turns the hand
about the optical axis; a mirrored image (det H < 0) mirrors it and changes its side.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from handos_model.preprocess import PADDING_VALUE, Letterbox
from handos_training.data.sample import HandLabels, Sample

Matrix = npt.NDArray[np.float64]
MIN_VISIBLE_PX = 2.0  # a hand of which less is left in the image is gone
MIN_VISIBLE_FRACTION = 0.1  # of its box; with less it can be seen but not be asked for


def warp(sample: Sample, matrix: Matrix, size_hw: tuple[int, int]) -> Sample:
    """Apply an affine `matrix` [3,3], old pixel to new pixel, into an image of `size_hw`."""
    image = sample.image.permute(1, 2, 0).numpy()
    warped = warp_image(np.ascontiguousarray(image), matrix, size_hw)
    return warp_labels(sample, matrix, size_hw).replace(image=_to_tensor(warped))


def mirror(width_px: int) -> Matrix:
    """The pixel map [3,3] that mirrors an image of `width_px`."""
    return np.array([[-1.0, 0, width_px - 1], [0, 1, 0], [0, 0, 1]])


def flip(sample: Sample) -> Sample:
    """The mirror image: left and right hands change places."""
    height, width = sample.image.shape[1:]
    flipped = warp_labels(sample, mirror(width), (height, width))
    return flipped.replace(image=sample.image.flip(-1))


def letterbox(sample: Sample, network_hw: tuple[int, int]) -> Sample:
    """The network's input, resampled and padded exactly as the pipeline does it."""
    height, width = sample.image.shape[1:]
    box = Letterbox((height, width), network_hw)
    buffer = box.buffer()
    box.apply(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()), buffer)
    return warp_labels(sample, box.matrix, network_hw).replace(image=_to_tensor(buffer[0]))


def warp_image(
    image: npt.NDArray[np.uint8], matrix: Matrix, size_hw: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Resample [h,w,3]; what lies outside is the pipeline's padding grey."""
    scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    shrink = int(1 / max(scale, 1e-3))
    if shrink >= 2:  # linear interpolation would skip pixels and alias
        h, w = image.shape[:2]
        small = (max(1, w // shrink), max(1, h // shrink))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.uint8)
        sx, sy = w / small[0], h / small[1]
        matrix = matrix @ np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
    warped = cv2.warpAffine(
        image,
        matrix[:2],
        (size_hw[1], size_hw[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PADDING_VALUE,) * 3,
    )
    return np.asarray(warped, np.uint8)


def warp_labels(sample: Sample, matrix: Matrix, size_hw: tuple[int, int]) -> Sample:
    """Labels and camera after the pixel map; the image is left to the caller."""
    camera, turn = split_camera(matrix @ sample.camera_matrix_px.double().numpy())
    hands = sample.hands
    if not len(hands):
        return sample.replace(camera_matrix_px=torch.from_numpy(camera).float())
    linear, offset = torch.from_numpy(matrix[:2, :2]), torch.from_numpy(matrix[:2, 2])
    rotation = torch.from_numpy(turn)

    def turned(points: Tensor) -> Tensor:
        return (points.double() @ rotation.T).to(points.dtype)

    joints_px = (hands.joints_px.double() @ linear.T + offset).float()
    joints_px = torch.where(hands.has_joint_px[..., None], joints_px, torch.zeros_like(joints_px))
    moved = replace(
        hands,
        joints_px=joints_px,
        joints_m=turned(hands.joints_m),
        vertices_m=turned(hands.vertices_m),
        translation_m=turned(hands.translation_m),
        is_left=hands.is_left ^ (hands.has_side & bool(np.linalg.det(matrix) < 0)),
    )
    moved = replace(
        moved,
        amodal_boxes_xyxy_px=_amodal_boxes(hands, moved, matrix, camera),
        boxes_xyxy_px=_corners_box(hands.boxes_xyxy_px, matrix),
    )
    if abs(matrix[0, 1]) + abs(matrix[1, 0]) > 1e-9:
        moved = replace(moved, boxes_xyxy_px=_turned_boxes(moved, camera))
    moved_sample = sample.replace(
        camera_matrix_px=torch.from_numpy(camera).float(),
        hands=cut_to_image(moved, camera, size_hw),
    )
    return drop_remnants(moved_sample, _areas(moved.boxes_xyxy_px))


def split_camera(projection: Matrix) -> tuple[Matrix, Matrix]:
    """K' upper triangular with a positive diagonal and Q orthogonal, K' Q = projection.

    The last row of an affine map times a camera is (0, 0, 1), so Q leaves z alone.
    """
    (a, b), (c, d) = projection[:2, :2]
    size = np.hypot(c, d)
    side = np.sign(a * d - b * c)
    turn = np.array([[side * d / size, -side * c / size, 0], [c / size, d / size, 0], [0, 0, 1.0]])
    camera = projection @ turn.T
    camera[1, 0] = 0.0
    return camera, turn


def cut_to_image(hands: HandLabels, camera: Matrix, size_hw: tuple[int, int]) -> HandLabels:
    """Clip visible boxes at the border and hide joints and vertices outside."""
    height, width = size_hw
    limit = torch.tensor([width, height]) - 0.5
    boxes = hands.boxes_xyxy_px.reshape(-1, 2, 2).clamp(min=-0.5).minimum(limit).reshape(-1, 4)
    vertices = (hands.vertices_m + hands.translation_m[:, None]).double().numpy()
    with np.errstate(divide='ignore', invalid='ignore'):
        vertices_px = torch.from_numpy(_project(vertices, camera))

    def inside(pixels: Tensor) -> Tensor:
        return ((pixels >= -0.5) & (pixels <= limit)).all(-1)

    placed = (hands.has_vertices_m & hands.has_translation)[:, None]
    return replace(
        hands,
        boxes_xyxy_px=boxes,
        joint_visible=hands.joint_visible & (inside(hands.joints_px) | ~hands.has_joint_px),
        vertex_visible=hands.vertex_visible & (inside(vertices_px) | ~placed),
    )


def drop_remnants(sample: Sample, areas_before_px2: Tensor) -> Sample:
    """Drop hands of which next to nothing is left of boxes of `areas_before_px2` [N].

    Where a sliver stays in view, the sample no longer says that all its hands are labelled, so
    that the sliver is no negative either.
    """
    boxes = sample.hands.boxes_xyxy_px
    in_view = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= MIN_VISIBLE_PX
    enough = in_view & (_areas(boxes) >= MIN_VISIBLE_FRACTION * areas_before_px2)
    if enough.all():
        return sample
    return sample.replace(
        hands=sample.hands[enough],
        all_hands_labelled=sample.all_hands_labelled and bool((enough | ~in_view).all()),
    )


def _amodal_boxes(hands: HandLabels, moved: HandLabels, matrix: Matrix, camera: Matrix) -> Tensor:
    """Exact for an unturned box and for a hand with a mesh; else the box of the turned joints with
    the margins (in part of its longer side) that the old box had around the old joints."""
    boxes = _corners_box(hands.amodal_boxes_xyxy_px, matrix)
    if abs(matrix[0, 1]) + abs(matrix[1, 0]) <= 1e-9:
        return boxes
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    for n in range(len(hands)):
        known = hands.has_joint_px[n]
        if hands.has_vertices_m[n] and hands.has_translation[n]:
            points = (moved.vertices_m[n] + moved.translation_m[n]).double().numpy()
            if (points[:, 2] > 0).all():
                boxes[n] = _bounds(torch.from_numpy(_project(points, camera)).float())
        elif known.sum() >= 3:
            old, new = _bounds(hands.joints_px[n, known]), _bounds(moved.joints_px[n, known])
            box = hands.amodal_boxes_xyxy_px[n]
            margin = torch.cat([old[:2] - box[:2], box[2:] - old[2:]]).mean() * scale
            boxes[n] = new + torch.stack([-margin, -margin, margin, margin])
    return boxes


def _turned_boxes(moved: HandLabels, camera: Matrix) -> Tensor:
    """Visible boxes after a turn: of the visible vertices where known, else what the turned old
    box and the new whole-hand box share (an upper bound of the visible part)."""
    boxes, amodal = moved.boxes_xyxy_px, moved.amodal_boxes_xyxy_px
    low = torch.maximum(boxes[:, :2], amodal[:, :2])
    high = torch.minimum(boxes[:, 2:], amodal[:, 2:])
    shared = torch.cat([low, high], dim=1)
    boxes = torch.where((high > low).all(1, keepdim=True), shared, boxes)
    exact = moved.has_vertices_m & moved.has_translation & moved.has_visibility
    for n in torch.nonzero(exact).flatten().tolist():
        seen = moved.vertex_visible[n]
        points = (moved.vertices_m[n, seen] + moved.translation_m[n]).double().numpy()
        if len(points) >= 3 and (points[:, 2] > 0).all():
            boxes[n] = _bounds(torch.from_numpy(_project(points, camera)).float())
    return boxes


def _corners_box(boxes: Tensor, matrix: Matrix) -> Tensor:
    """The upright box around the four moved corners of each box [N,4]."""
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2).double()
    moved = corners @ torch.from_numpy(matrix[:2, :2]).T + torch.from_numpy(matrix[:2, 2])
    return torch.cat([moved.amin(1), moved.amax(1)], dim=1).float()


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def _bounds(points: Tensor) -> Tensor:
    return torch.cat([points.amin(0), points.amax(0)])


def _project(points_m: Matrix, camera: Matrix) -> Matrix:
    """Pixels [...,2] of camera points [...,3]."""
    image = points_m @ camera.T
    return np.asarray(image[..., :2] / image[..., 2:])


def _to_tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1))
