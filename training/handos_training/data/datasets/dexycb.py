"""DexYCB (Chao et al., CVPR 2021): a left or a right hand grasps an object, 8 cameras, 640 x 480.

    ROOT/SUBJECT/SEQUENCE/SERIAL/color_%06d.jpg and labels_%06d.npz   (100 sequences a subject)
    ROOT/SUBJECT/SEQUENCE/meta.yml                     num_frames, mano_sides, mano_calib
    ROOT/calibration/intrinsics/SERIAL_640x480.yml     color: {fx, fy, ppx, ppy}
    ROOT/calibration/mano_CALIB/mano.yml               betas

Labels are MPII order, OpenCV axes, metres; -1 is missing. Splits are SETUP_SPLIT, as s0_train; a
sample's index is the image id of the official text file. Where `mano` is given, `pose_m` becomes a
mesh: global axis angles, 45 coefficients of MANO's pose space with its non-flat mean, metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from handos_model.errors import UserError
from handos_model.hand.model import MPII_FROM_MANO, HandModel
from handos_training.data.datasets.records import (
    Array,
    HandRecord,
    array,
    make_sample,
    mano_vertices,
    need,
    read_image,
)
from handos_training.data.sample import Sample

SUBJECTS = (
    '20200709-subject-01', '20200813-subject-02', '20200820-subject-03', '20200903-subject-04',
    '20200908-subject-05', '20200918-subject-06', '20200928-subject-07', '20201002-subject-08',
    '20201015-subject-09', '20201022-subject-10',
)  # fmt: skip
SERIALS = (
    '836212060125', '839512060362', '840412060917', '841412060263',
    '932122060857', '932122060861', '932122061900', '932122062010',
)  # fmt: skip
MANO_FROM_MPII = tuple(int(i) for i in np.argsort(MPII_FROM_MANO)[:16])  # the 16 that have a bone
SEQUENCES = 100  # of each subject: 20 objects, five times each


def _sequences(*, test: bool) -> tuple[int, ...]:
    return tuple(i for i in range(SEQUENCES) if (i % 5 == 4) == test)


def _grasps(*blocks: int) -> tuple[int, ...]:
    return tuple(i for i in range(SEQUENCES) if i // 5 in blocks)


_ALL = tuple(range(SEQUENCES))
# (subjects, cameras, sequences) of each split: s0 mixed, s1 new subjects, s2 new views, s3 new
# objects.
SPLITS: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    's0_train': (tuple(range(10)), tuple(range(8)), _sequences(test=False)),
    's0_val': ((0, 1), tuple(range(8)), _sequences(test=True)),
    's0_test': (tuple(range(2, 10)), tuple(range(8)), _sequences(test=True)),
    's1_train': ((0, 1, 2, 3, 4, 5, 9), tuple(range(8)), _ALL),
    's1_val': ((6,), tuple(range(8)), _ALL),
    's1_test': ((7, 8), tuple(range(8)), _ALL),
    's2_train': (tuple(range(10)), (0, 1, 2, 3, 4, 5), _ALL),
    's2_val': (tuple(range(10)), (6,), _ALL),
    's2_test': (tuple(range(10)), (7,), _ALL),
    's3_train': (
        tuple(range(10)),
        tuple(range(8)),
        tuple(i for i in _ALL if i // 5 not in (3, 7, 11, 15, 19)),
    ),
    's3_val': (tuple(range(10)), tuple(range(8)), _grasps(3, 19)),
    's3_test': (tuple(range(10)), tuple(range(8)), _grasps(7, 11, 15)),
}


@dataclass(frozen=True)
class Recording:
    """One sequence seen by one camera."""

    folder: str
    serial: str
    is_left: bool
    calibration: str  # of the hand's shape
    first: int  # index of its first frame
    num_frames: int


class DexYCB:
    """Frames of one split: by subject, sequence, camera, time, as the official toolkit counts."""

    splits = tuple(SPLITS)
    has_camera = True

    def __init__(self, root: Path, split: str = 's0_train', mano: HandModel | None = None) -> None:
        self.root = root
        self.split = split
        self.mano = mano
        self._betas: dict[str, Array] = {}
        if mano is not None and mano.pose_space is None:
            raise UserError(
                'DexYCB labels meshes in the pose space of MANO (hands_components, hands_mean), '
                'which this MANO file lacks: give MANO_RIGHT.pkl itself'
            )
        subjects, cameras, wanted = SPLITS[split]
        self.serials = [SERIALS[i] for i in cameras]
        self.cameras_px = {serial: _intrinsics(root, serial) for serial in self.serials}
        self.recordings: list[Recording] = []
        end = 0
        for subject in (SUBJECTS[i] for i in subjects):
            folders = sorted(p for p in need(root / subject).iterdir() if p.is_dir())
            if len(folders) != SEQUENCES:
                raise UserError(
                    f'{root / subject} has {len(folders)} sequences, DexYCB has {SEQUENCES}: '
                    'splits count them, so unpack the whole archive of the subject'
                )
            for folder in (folders[i] for i in wanted):
                meta = _read_yaml(folder / 'meta.yml')
                num_frames, side = int(meta['num_frames']), str(meta['mano_sides'][0])
                calibration = str(meta.get('mano_calib', [''])[0])
                for serial in self.serials:
                    place = f'{subject}/{folder.name}'
                    self.recordings.append(
                        Recording(place, serial, side == 'left', calibration, end, num_frames)
                    )
                    end += num_frames
        self._firsts = np.array([recording.first for recording in self.recordings])
        self._length = end

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        recording, frame = self._locate(index)
        folder = self.root / recording.folder / recording.serial
        name = f'dexycb/{recording.folder}/{recording.serial}/{frame:06d}'
        image = read_image(folder / f'color_{frame:06d}.jpg')
        camera = self.cameras_px[recording.serial]
        with np.load(folder / f'labels_{frame:06d}.npz', allow_pickle=False) as labels:
            joints = array(labels['joint_3d'], (1, 21, 3), f'{name}: joint_3d')[0]
            pixels = array(labels['joint_2d'], (1, 21, 2), f'{name}: joint_2d')[0]
            pose = None
            if self.mano is not None:
                pose = array(labels['pose_m'], (1, 51), f'{name}: pose_m')[0]
        records = []
        if not (joints == -1).all():
            records.append(
                HandRecord(
                    pixels,
                    (pixels != -1).any(1),
                    is_left=recording.is_left,
                    joints_m=joints,
                    vertices_m=self._mesh(pose, recording, joints, name),
                )
            )
        # The other hand of the person may be in view.
        return make_sample(image, records, name, camera_px=camera)

    def sequence(self, index: int) -> str | None:
        """The recording that a frame belongs to."""
        recording, _ = self._locate(index)
        return f'{recording.folder}/{recording.serial}'

    def _mesh(
        self, pose: Array | None, recording: Recording, joints_m: Array, name: str
    ) -> Array | None:
        """[778,3] of `pose [51]`, if it has the labelled joints: then MANO and label agree."""
        if self.mano is None or pose is None or not pose.any():
            return None
        space = self.mano.pose_space
        assert space is not None
        fingers = space.axis_angles(pose[3:48])  # of a right hand
        if recording.is_left:
            fingers = fingers * [1.0, -1.0, -1.0]  # MANO_LEFT's pose space is the mirror image
        vertices, error = mano_vertices(
            self.mano,
            np.concatenate([pose[None, :3], fingers]),
            self._shape(recording.calibration),
            pose[48:],
            is_left=recording.is_left,
            joints_m=joints_m[list(MANO_FROM_MPII)],
        )
        if vertices is None and not recording.is_left:
            raise ValueError(f'{name}: the mesh of pose_m is {1000 * error:.0f} mm off its joints')
        return vertices

    def _shape(self, calibration: str) -> Array:
        if calibration not in self._betas:
            path = self.root / 'calibration' / f'mano_{calibration}' / 'mano.yml'
            self._betas[calibration] = array(_read_yaml(path)['betas'], (10,), f'{path}: betas')
        return self._betas[calibration]

    def _locate(self, index: int) -> tuple[Recording, int]:
        if not 0 <= index < self._length:
            raise IndexError(index)
        recording = self.recordings[int(np.searchsorted(self._firsts, index, side='right')) - 1]
        return recording, index - recording.first


def _intrinsics(root: Path, serial: str) -> Array:
    path = root / 'calibration' / 'intrinsics' / f'{serial}_640x480.yml'
    colour = _read_yaml(path)['color']
    fx, fy, cx, cy = (float(colour[key]) for key in ('fx', 'fy', 'ppx', 'ppy'))
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(need(path).read_text())
    except yaml.YAMLError as error:
        raise UserError(f'{path} is not valid YAML ({error})') from None
    if not isinstance(content, dict):
        raise UserError(f'{path} must hold a mapping')
    return content
