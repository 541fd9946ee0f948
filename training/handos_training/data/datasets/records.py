"""What every reader of a dataset on disk needs: images, JSON, and labels from plain arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from handos_model.errors import UserError
from handos_model.geometry.rotations import axis_angle_to_matrix
from handos_model.hand.model import HandModel
from handos_model.types import ROOT_JOINT, Camera
from handos_training.data.sample import HandLabels, Sample, empty_labels

# Joints are bone ends and skin reaches further: on random poses of the embedded hand, seen from
# everywhere, by 0.057 of the longer side of their box on average, on each side.
BOX_MARGIN = 0.06
MESH_TOLERANCE_M = 0.002
MIN_BOX_PX = 2.0
OPENCV_FROM_OPENGL = np.array([1.0, -1.0, -1.0])  # x right; y and z change sign

Array = npt.NDArray[np.float64]


@dataclass
class HandRecord:
    """The labels of one hand as a dataset has them; None is missing."""

    joints_px: Array  # [21,2]
    labelled: npt.NDArray[np.bool_]  # [21], which of them are labelled
    is_left: bool | None = None
    box_xyxy_px: Array | None = None  # [4] the dataset's own
    visible: npt.NDArray[np.bool_] | None = None  # [21]
    joints_m: Array | None = None  # [21,3] in the camera's optical frame
    vertices_m: Array | None = None  # [778,3] in the camera's optical frame


def make_sample(
    image: Tensor,
    records: Sequence[HandRecord],
    name: str,
    *,
    camera_px: Array | None = None,
    all_hands_labelled: bool = False,
) -> Sample:
    """A checked sample. Without `camera_px` [3,3] it gets the virtual camera.

    A hand without its own box gets that of its projected mesh, else that of its labelled joints
    and `BOX_MARGIN`; hands without a box inside the image are left out.
    """
    height, width = image.shape[1:]
    if camera_px is None:
        camera_px = np.asarray(Camera.uncalibrated(width, height).matrix_px, np.float64)
    boxes = [_box(record, camera_px) for record in records]
    limit = np.array([width, height] * 2) - 0.5
    cut = [np.clip(box, -0.5, limit) for box in boxes]
    kept = [n for n, box in enumerate(cut) if (box[2:] - box[:2]).min() >= MIN_BOX_PX]
    hands = empty_labels(len(kept))
    for row, n in enumerate(kept):
        hands.boxes_xyxy_px[row] = torch.from_numpy(cut[n])
        hands.amodal_boxes_xyxy_px[row] = torch.from_numpy(boxes[n])
        _fill(hands, row, records[n])
    sample = Sample(
        image, torch.from_numpy(camera_px).float(), hands, name,
        all_hands_labelled=all_hands_labelled and len(kept) == len(records),
    )  # fmt: skip
    sample.check()
    return sample


def project(points_m: npt.ArrayLike, camera_px: npt.ArrayLike) -> Array:
    """Pixels [...,2] of points [...,3] of the camera's optical frame."""
    image = np.asarray(points_m, np.float64) @ np.asarray(camera_px, np.float64).T
    return np.asarray(image[..., :2] / image[..., 2:])


def mano_vertices(
    mano: HandModel,
    axis_angles: Array,
    betas: Array,
    translation_m: Array,
    *,
    is_left: bool,
    joints_m: Array,
) -> tuple[Array | None, float]:
    """Vertices [778,3] of MANO parameters, if they have the labelled joints; and how far off, m.

    `axis_angles [16,3]` are of the hand's own side, `joints_m [16,3]` in MANO's order. MANO_LEFT
    is the mirror image of the right hand, but in many releases the x of its shapes is not
    mirrored; what has the labelled joints is taken, and where none has them there is no mesh.
    """
    models, mirror = [mano], np.ones(3)
    if is_left:
        mirror = np.array([-1.0, 1.0, 1.0])
        axis_angles = axis_angles * [1.0, -1.0, -1.0]
        turned = replace(mano, shapedirs=mano.shapedirs * mirror[:, None])
        models = [turned, mano]
    error = float('inf')
    for model in models:
        vertices, _ = model.pose(axis_angle_to_matrix(axis_angles), betas)
        vertices = vertices * mirror + translation_m
        error = min(error, float(np.abs(model.joint_regressor @ vertices - joints_m).max()))
        if error < MESH_TOLERANCE_M:
            return vertices, error
    return None, error


def read_image(path: Path) -> Tensor:
    """uint8 RGB [3,H,W] as stored (EXIF orientation ignored: labels count stored pixels).

    Raises ValueError where the file is damaged; OpenCV alone fills a truncated one with grey.
    """
    data = path.read_bytes()
    whole = data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xda')  # JPEG: an end after the last scan
    if data[:2] != b'\xff\xd8':
        whole = b'IEND' in data[-16:]  # PNG
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if whole else None
    if image is None:
        raise ValueError(f'{path}: truncated or not a JPEG or PNG image')
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))


def read_json(path: Path) -> Any:
    """Parsed JSON; UserError where the file is missing or no JSON."""
    try:
        return json.loads(need(path).read_bytes())
    except ValueError as error:
        raise UserError(f'{path} is not valid JSON ({error}): download it again') from None


def need(path: Path) -> Path:
    """The path, or UserError where nothing is there."""
    if not path.exists():
        raise UserError(f'{path} is missing; see docs/datasets for the tree that is expected')
    return path


def array(values: Any, shape: tuple[int, ...], what: str) -> Array:
    """A finite float64 array of `shape`, or ValueError."""
    result = np.asarray(values, np.float64)
    if result.shape != shape or not np.isfinite(result).all():
        raise ValueError(f'{what} must be finite {shape}, got {result.shape}')
    return result


def _box(record: HandRecord, camera_px: Array) -> Array:
    if record.box_xyxy_px is not None:
        return record.box_xyxy_px
    if record.vertices_m is not None and (record.vertices_m[:, 2] > 0).all():
        pixels = project(record.vertices_m, camera_px)
        return np.concatenate([pixels.min(0), pixels.max(0)])
    if record.labelled.sum() < 2:
        return np.zeros(4)
    pixels = record.joints_px[record.labelled]
    low, high = pixels.min(0), pixels.max(0)
    margin = BOX_MARGIN * (high - low).max()
    return np.concatenate([low - margin, high + margin])


def _fill(hands: HandLabels, row: int, record: HandRecord) -> None:
    labelled = torch.from_numpy(record.labelled.astype(bool))
    hands.has_joint_px[row] = labelled
    hands.joints_px[row, labelled] = torch.from_numpy(record.joints_px).float()[labelled]
    if record.is_left is not None:
        hands.is_left[row], hands.has_side[row] = record.is_left, True
    if record.visible is not None:
        hands.joint_visible[row] = torch.from_numpy(record.visible.astype(bool))
        hands.has_visibility[row] = True
    if record.joints_m is not None:
        root = record.joints_m[ROOT_JOINT]
        hands.joints_m[row] = torch.from_numpy(record.joints_m - root)
        hands.translation_m[row] = torch.from_numpy(root)
        hands.has_joints_m[row] = hands.has_translation[row] = True
        if record.vertices_m is not None:
            hands.vertices_m[row] = torch.from_numpy(record.vertices_m - root)
            hands.has_vertices_m[row] = True
