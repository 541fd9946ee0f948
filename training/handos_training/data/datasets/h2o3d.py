"""H2O-3D v1 (Hampali et al., CVPR 2022): two hands that hold an object, 640 x 480.

    ROOT/{train,evaluation}/SEQUENCE/rgb/0000.jpg and meta/0000.pkl
    ROOT/{train,evaluation}.txt     lines SEQUENCE/0000

As HO3D of the same authors, with both hands: {right,left}HandJoints3D, -Pose and -Trans and one
handBeta. Only the training split has labels; frames that were not solved have none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.joint_orders import MPII_FROM_HO3D
from handos_training.data.datasets.records import (
    OPENCV_FROM_OPENGL,
    Array,
    HandRecord,
    array,
    make_sample,
    mano_vertices,
    need,
    project,
    read_image,
)
from handos_training.data.datasets.safe_pickle import load_plain
from handos_training.data.sample import Sample


class H2O3D:
    """Frames of the training split in the order of its text file."""

    splits = ('train',)
    has_camera = True

    def __init__(self, root: Path, split: str = 'train', mano: HandModel | None = None) -> None:
        self.root, self.split, self.mano = root, split, mano
        self.frames = need(root / f'{split}.txt').read_text().split()
        if not self.frames or any(frame.count('/') != 1 for frame in self.frames):
            raise UserError(f'{root}/{split}.txt must hold lines like SHSU10/0000')

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        sequence, frame = self.frames[index].split('/')
        folder = self.root / self.split / sequence
        name = f'h2o3d/{self.split}/{sequence}/{frame}'
        image = read_image(folder / 'rgb' / f'{frame}.jpg')
        meta = load_plain(folder / 'meta' / f'{frame}.pkl')
        camera = array(meta['camMat'], (3, 3), f'{name}: camMat')
        records = []
        if meta.get('objRot') is not None:
            sides = [
                side for side in ('right', 'left') if meta.get(f'{side}HandJoints3D') is not None
            ]
            records = [self._record(meta, side, camera, name) for side in sides]
        return make_sample(
            image, records, name, camera_px=camera, all_hands_labelled=len(records) == 2
        )

    def sequence(self, index: int) -> str | None:
        """The recording that a frame belongs to."""
        return self.frames[index].split('/')[0]

    def _record(self, meta: dict[str, Any], side: str, camera: Array, name: str) -> HandRecord:
        theirs = array(meta[f'{side}HandJoints3D'], (21, 3), f'{name}: {side}HandJoints3D')
        joints = (theirs * OPENCV_FROM_OPENGL)[list(MPII_FROM_HO3D)]
        vertices = None
        if self.mano is not None:
            vertices, error = mano_vertices(
                self.mano,
                array(meta[f'{side}HandPose'], (48,), f'{name}: {side}HandPose').reshape(16, 3),
                array(meta['handBeta'], (10,), f'{name}: handBeta'),
                array(meta[f'{side}HandTrans'], (3,), f'{name}: {side}HandTrans'),
                is_left=side == 'left',
                joints_m=theirs[:16],
            )
            if vertices is not None:
                vertices = vertices * OPENCV_FROM_OPENGL
            elif side == 'right':
                raise ValueError(f'{name}: the mesh is {1000 * error:.0f} mm off its joints')
        return HandRecord(
            project(joints, camera),
            np.ones(21, bool),
            is_left=side == 'left',
            joints_m=joints,
            vertices_m=vertices,
        )
