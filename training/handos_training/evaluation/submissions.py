"""The files that the benchmarks' own servers and scripts read, from predictions in image order.

Each image has one answer: the prediction that matched its label, the best one where the image has
no label, None where no hand was found. None becomes zeros, since every format wants every image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from handos_model.types import NUM_VERTICES, Hand
from handos_training.data.datasets.joint_orders import HO3D_FROM_MPII
from handos_training.data.datasets.records import OPENCV_FROM_OPENGL

Array = npt.NDArray[np.float64]


class Answer(NamedTuple):
    """What is submitted for one image; `joints_m` [21,3] are as the dataset defines them."""

    image_id: int
    name: str
    hand: Hand | None
    joints_m: Array


def write_freihand(answers: Sequence[Answer], folder: Path) -> Path:
    """`pred.json`: [xyz [N,21,3], verts [N,778,3]], metres, OpenCV axes, MPII order."""
    return _write_json(
        folder / 'pred.json',
        [answer.joints_m for answer in answers],
        [_vertices(answer.hand) for answer in answers],
    )


def write_ho3d(answers: Sequence[Answer], folder: Path) -> Path:
    """`pred.json` as FreiHAND's, but in OpenGL axes and HO3D's joint order."""
    order = list(HO3D_FROM_MPII)
    return _write_json(
        folder / 'pred.json',
        [answer.joints_m[order] * OPENCV_FROM_OPENGL for answer in answers],
        [_vertices(answer.hand) * OPENCV_FROM_OPENGL for answer in answers],
    )


def write_dexycb(answers: Sequence[Answer], folder: Path) -> Path:
    """`dexycb.txt`: a line an image, `index,x1,y1,z1,...` in millimetres, MPII order."""
    lines = [
        ','.join(
            [str(answer.image_id), *(f'{1000 * value:.4f}' for value in answer.joints_m.ravel())]
        )
        for answer in answers
    ]
    return _write_text(folder / 'dexycb.txt', '\n'.join(lines) + '\n')


def write_hint(answers: Sequence[Answer], folder: Path) -> Path:
    """`hint.npz` with the keys of HaMeR's files: imgname, center [N,2], scale [N] (longer side,
    px), right [N], hand_keypoints_2d [N,21,3] (x, y, confidence; zeros where missed)."""
    center, scale, right = (
        np.zeros((len(answers), 2)),
        np.zeros(len(answers)),
        np.zeros(len(answers)),
    )
    keypoints = np.zeros((len(answers), 21, 3))
    for row, answer in enumerate(answers):
        if answer.hand is not None:
            low, high = answer.hand.box_xyxy_px[:2], answer.hand.box_xyxy_px[2:]
            center[row], scale[row] = (low + high) / 2, (high - low).max()
            right[row] = not answer.hand.is_left
            keypoints[row] = np.column_stack([answer.hand.joints_px, answer.hand.joint_confidence])
    path = folder / 'hint.npz'
    folder.mkdir(parents=True, exist_ok=True)
    names = np.array([f'{Path(answer.name).name}.jpg' for answer in answers])
    np.savez(
        path, imgname=names, center=center, scale=scale, right=right, hand_keypoints_2d=keypoints
    )
    return path


WRITERS: dict[str, Callable[[Sequence[Answer], Path], Path]] = {
    'freihand': write_freihand,
    'ho3d': write_ho3d,
    'dexycb': write_dexycb,
    'hint': write_hint,
}
WITH_VERTICES = ('freihand', 'ho3d')


def _vertices(hand: Hand | None) -> Array:
    return np.zeros((NUM_VERTICES, 3)) if hand is None else np.asarray(hand.vertices_m)


def _write_json(path: Path, joints: list[Array], vertices: list[Array]) -> Path:
    rounded = [  # in doubles: a rounded float32 has seventeen digits again
        [np.round(np.asarray(value, np.float64), 6).tolist() for value in values]
        for values in (joints, vertices)
    ]
    return _write_text(path, json.dumps(rounded))


def _write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
