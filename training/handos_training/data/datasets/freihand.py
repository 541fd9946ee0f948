"""FreiHAND v2 (Zimmermann et al., ICCV 2019): one right hand an image, 224 x 224.

    ROOT/training/rgb/%08d.jpg      32,560 unique images, then the same again with three
                                    backgrounds: image i + 32,560 v is version v of label i
    ROOT/training_{K,xyz}.json      [32560,3,3] px, [32560,21,3] m, MPII order, OpenCV axes
    ROOT/training_verts.json        [32560,778,3] m, MANO topology
    ROOT/evaluation/rgb/%08d.jpg and ROOT/evaluation_{K,xyz,verts}.json, 3,960 of each

Vertices are only labels for a network whose template is MANO, so they are read where `mano` is
given. Reading 2 GB of JSON takes minutes; the result is kept beside it as .npy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.records import (
    HandRecord,
    array,
    make_sample,
    need,
    project,
    read_image,
    read_json,
)
from handos_training.data.sample import Sample

Version = Literal['gs', 'hom', 'sample', 'auto']
VERSIONS: tuple[Version, ...] = ('gs', 'hom', 'sample', 'auto')


class FreiHAND:
    """Samples in the order of the official files: all labels of one version, then the next."""

    splits = ('training', 'evaluation')
    has_camera = True

    def __init__(
        self,
        root: Path,
        split: str = 'training',
        mano: HandModel | None = None,
        versions: tuple[Version, ...] = VERSIONS,
    ) -> None:
        self.root = root
        self.split = split
        self.cameras_px = _compact(read_json(root / f'{split}_K.json'))
        joints = root / f'{split}_xyz.json'
        # Early downloads of the evaluation set have no labels.
        self.joints_m = None
        if split == 'training' or joints.exists():
            self.joints_m = _compact(read_json(joints))
        self.vertices_m = None if mano is None else _vertices(root / f'{split}_verts.json')
        numbers = [VERSIONS.index(version) for version in versions]
        self.numbers = numbers if split == 'training' else [0]
        for name, values in (('xyz', self.joints_m), ('verts', self.vertices_m)):
            if values is not None and len(values) != len(self.cameras_px):
                raise UserError(
                    f'{root}/{split}_{name}.json has {len(values)} entries and _K.json has '
                    f'{len(self.cameras_px)}: they are of different releases'
                )
        need(self._path(len(self) - 1))

    def __len__(self) -> int:
        return len(self.cameras_px) * len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        label = index % len(self.cameras_px)
        path = self._path(index)
        name = f'freihand/{self.split}/{path.stem}'
        camera = array(self.cameras_px[label], (3, 3), f'{name}: K')
        image = read_image(path)
        records = []
        if self.joints_m is not None:
            joints = array(self.joints_m[label], (21, 3), f'{name}: xyz')
            records.append(
                HandRecord(
                    project(joints, camera),
                    np.ones(21, bool),
                    is_left=False,
                    joints_m=joints,
                    vertices_m=None
                    if self.vertices_m is None
                    else array(self.vertices_m[label], (778, 3), f'{name}: verts'),
                )
            )
        return make_sample(
            image, records, name, camera_px=camera, all_hands_labelled=bool(records)
        )

    def sequence(self, index: int) -> str | None:
        """Images stand alone."""
        return None

    def _path(self, index: int) -> Path:
        version, label = divmod(index, len(self.cameras_px))
        number = self.numbers[version] * len(self.cameras_px) + label
        return self.root / self.split / 'rgb' / f'{number:08d}.jpg'


def _compact(values: Any) -> Any:
    """An array in place of nested lists, which worker processes would copy; lists where an entry
    is damaged, so that only its sample fails."""
    try:
        return np.array(values, np.float64)
    except (ValueError, TypeError):
        return values


def _vertices(path: Path) -> npt.NDArray[np.float32]:
    """[N,778,3] of a huge JSON file, through a .npy beside it (not kept where not writable)."""
    kept = path.with_suffix('.npy')
    if kept.exists() and kept.stat().st_mtime >= need(path).stat().st_mtime:
        return np.asarray(np.load(kept, mmap_mode='r', allow_pickle=False))
    vertices = np.array(read_json(path), np.float32)
    if vertices.ndim != 3 or vertices.shape[1:] != (778, 3):
        raise UserError(f'{path} must hold [N,778,3], got {vertices.shape}')
    try:
        temporary = kept.with_suffix('.tmp.npy')
        np.save(temporary, vertices)
        temporary.replace(kept)
    except OSError:
        pass  # a read-only dataset: parse again next time
    return vertices
