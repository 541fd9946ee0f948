"""CompHand, the complement data of MobRecon (Chen et al., CVPR 2022): one rendered left hand an
image, 256 x 256.

    ROOT/K256.npy     [3,3] px, of every image
    ROOT/j_reg.npy    [21,778]: wrist, index, middle, little, ring, thumb, then their tips
    ROOT/data/PART/pic256/.../FOLDER/NAME.NUMBER.png
    ROOT/data/PART/model_mano/.../NUMBER.obj     vertices in metres, OpenCV axes, MANO topology

The folders between are the same on both sides, but FOLDER is of images only. Views with 215 in
their name are left out, as the authors leave them out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.records import (
    Array,
    HandRecord,
    array,
    make_sample,
    need,
    project,
    read_image,
)
from handos_training.data.sample import Sample

MPII_FROM_COMPHAND = (
    *(0, 13, 14, 15, 20, 1, 2, 3, 16),  # wrist, thumb, index
    *(4, 5, 6, 17, 10, 11, 12, 19, 7, 8, 9, 18),  # middle, ring, little
)
LEFT_OUT = '215'


class CompHand:
    """Images in the order of their paths."""

    splits = ('train',)
    has_camera = True

    def __init__(self, root: Path, split: str = 'train', mano: HandModel | None = None) -> None:
        self.root, self.with_meshes = root, mano is not None
        self.camera_px = array(_load(root / 'K256.npy'), (3, 3), 'K256.npy')
        regressor = array(_load(root / 'j_reg.npy'), (21, 778), 'j_reg.npy')
        self.joint_regressor = regressor[list(MPII_FROM_COMPHAND)]
        found = need(root / 'data').glob('**/pic256/**/*.png')
        self.paths = sorted(str(p.relative_to(root)) for p in found if LEFT_OUT not in p.name)
        if not self.paths:
            raise UserError(f'{root}/data holds no pic256/.../NAME.NUMBER.png')

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = Path(self.paths[index])
        folders = ['model_mano' if part == 'pic256' else part for part in path.parts[:-2]]
        number = int(path.name.split('.')[1])
        vertices = _vertices(self.root.joinpath(*folders, f'{number}.obj'))
        joints = self.joint_regressor @ vertices
        record = HandRecord(
            project(joints, self.camera_px),
            np.ones(21, bool),
            is_left=True,
            joints_m=joints,
            vertices_m=vertices if self.with_meshes else None,
        )
        return make_sample(
            read_image(self.root / path),
            [record],
            f'comphand/{path}',
            camera_px=self.camera_px,
            all_hands_labelled=True,
        )

    def sequence(self, index: int) -> str | None:
        """Images stand alone."""
        return None


def _load(path: Path) -> Array:
    return np.asarray(np.load(need(path), allow_pickle=False))


def _vertices(path: Path) -> Array:
    """[778,3] of the lines `v x y z` of an OBJ file."""
    lines = [line.split()[1:4] for line in path.read_text().splitlines() if line[:2] == 'v ']
    return array([[float(value) for value in line] for line in lines], (778, 3), str(path))
