"""HO3D v3 (Hampali et al.): a right hand that holds an object, 640 x 480.

    ROOT/{train,evaluation}/SEQUENCE/rgb/0000.jpg (v2: .png) and meta/0000.pkl
    ROOT/{train,evaluation}.txt     lines SEQUENCE/0000, in the order of submissions
    ROOT/evaluation_{xyz,verts}.json   released in 2024; without them evaluation images have a box

Labels are in OpenGL axes (y up, z backwards) and MANO's joint order with the tips behind; they
come out in OpenCV axes and MPII order. Meshes are posed with the user's MANO (axis angles, flat
mean) where `mano` is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from handos_model.errors import UserError
from handos_model.geometry.rotations import axis_angle_to_matrix
from handos_model.hand.model import HandModel
from handos_training.data.datasets.joint_orders import MPII_FROM_HO3D
from handos_training.data.datasets.records import (
    OPENCV_FROM_OPENGL,
    Array,
    HandRecord,
    array,
    make_sample,
    need,
    project,
    read_image,
    read_json,
)
from handos_training.data.datasets.safe_pickle import load_plain
from handos_training.data.sample import Sample


class HO3D:
    """Frames of one split in the order of its text file."""

    splits = ('train', 'evaluation')
    has_camera = True

    def __init__(self, root: Path, split: str = 'train', mano: HandModel | None = None) -> None:
        self.root = root
        self.split = split
        self.mano = mano
        self.frames = need(root / f'{split}.txt').read_text().split()
        if not self.frames or any(frame.count('/') != 1 for frame in self.frames):
            raise UserError(f'{root}/{split}.txt must hold lines like ABF10/0000')
        self.truth: dict[str, Any] = {}
        if split == 'evaluation':
            for kind in ('xyz', 'verts'):
                path = root / f'evaluation_{kind}.json'
                if path.exists():
                    self.truth[kind] = read_json(path)
                    if len(self.truth[kind]) != len(self.frames):
                        raise UserError(
                            f'{path} has {len(self.truth[kind])} entries, evaluation.txt '
                            f'{len(self.frames)}: they are of different versions of HO3D'
                        )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        sequence, frame = self.frames[index].split('/')
        folder = self.root / self.split / sequence
        name = f'ho3d/{self.split}/{sequence}/{frame}'
        path = folder / 'rgb' / f'{frame}.jpg'
        image = read_image(path if path.exists() else path.with_suffix('.png'))
        meta = load_plain(folder / 'meta' / f'{frame}.pkl')
        camera = array(meta['camMat'], (3, 3), f'{name}: camMat')
        record = self._record(index, meta, camera, name)
        # Other hands of the person may be in view.
        return make_sample(image, [] if record is None else [record], name, camera_px=camera)

    def sequence(self, index: int) -> str | None:
        """The recording that a frame belongs to."""
        return self.frames[index].split('/')[0]

    def _record(
        self, index: int, meta: dict[str, Any], camera: Array, name: str
    ) -> HandRecord | None:
        if self.split == 'train':
            if meta.get('objRot') is None or meta.get('handJoints3D') is None:
                return None  # a frame that the authors' optimisation did not solve
            joints = _ours(meta['handJoints3D'], 21, f'{name}: handJoints3D')[list(MPII_FROM_HO3D)]
            vertices = None if self.mano is None else _pose(self.mano, meta, name)
            return _hand(joints, vertices, camera)
        box = array(meta['handBoundingBox'], (4,), f'{name}: handBoundingBox')
        if 'xyz' in self.truth:
            joints = _ours(self.truth['xyz'][index], 21, f'{name}: xyz')[list(MPII_FROM_HO3D)]
            vertices = None
            if self.mano is not None and 'verts' in self.truth:
                vertices = _ours(self.truth['verts'][index], 778, f'{name}: verts')
            return _hand(joints, vertices, camera, box)
        wrist = _ours(np.reshape(meta['handJoints3D'], (-1, 3))[:1], 1, f'{name}: handJoints3D')
        joints_px = np.zeros((21, 2))
        joints_px[0] = project(wrist, camera)[0]
        return HandRecord(joints_px, np.arange(21) == 0, is_left=False, box_xyxy_px=box)


def _hand(
    joints: Array, vertices: Array | None, camera: Array, box: Array | None = None
) -> HandRecord:
    return HandRecord(
        project(joints, camera),
        np.ones(21, bool),
        is_left=False,
        box_xyxy_px=box,
        joints_m=joints,
        vertices_m=vertices,
    )


def _ours(points: npt.ArrayLike, count: int, what: str) -> Array:
    return np.asarray(array(points, (count, 3), what) * OPENCV_FROM_OPENGL)


def _pose(mano: HandModel, meta: dict[str, Any], name: str) -> Array:
    """Vertices of the labelled MANO parameters, OpenCV axes."""
    pose = array(meta['handPose'], (48,), f'{name}: handPose').reshape(16, 3)
    betas = array(meta['handBeta'], (10,), f'{name}: handBeta')
    vertices, _ = mano.pose(axis_angle_to_matrix(pose), betas)
    trans = array(meta['handTrans'], (3,), f'{name}: handTrans')
    return np.asarray((vertices + trans) * OPENCV_FROM_OPENGL)
