"""Datasets of a few images in their true layouts, and the files that a user brings with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from hand_samples import posed_hand, project, random_rotation, write_jpeg
from scipy.spatial.transform import Rotation

from handos_model.hand.model import HandModel

DEXYCB_SERIALS = (
    '836212060125', '839512060362', '840412060917', '841412060263',
    '932122060857', '932122060861', '932122061900', '932122062010',
)  # fmt: skip
DEXYCB_SUBJECTS = (
    '20200709-subject-01', '20200813-subject-02', '20200820-subject-03', '20200903-subject-04',
    '20200908-subject-05', '20200918-subject-06', '20200928-subject-07', '20201002-subject-08',
    '20201015-subject-09', '20201022-subject-10',
)  # fmt: skip
DEXYCB_CAMERA = np.array([[617.3, 0, 312.4], [0, 617.1, 241.4], [0, 0, 1]])
BETAS = np.linspace(-1, 1, 10)
FREIHAND_CAMERA = [[480.0, 0, 112.0], [0, 480.0, 112.0], [0, 0, 1]]


def write_mano(folder: Path) -> Path:
    """MANO_RIGHT.pkl as its authors wrote it, of a hand that is slimmer than the embedded one."""
    from hand.mano_files import mano_content, written

    embedded = HandModel.embedded()
    slim = replace(embedded, v_template=embedded.v_template * [1.0, 0.95, 1.0])
    path = folder / 'MANO_RIGHT.pkl'
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(45, 45)))[0]
    path.write_bytes(written(mano_content(slim) | {'hands_components': turn}))
    return path


def write_freihand(root: Path, model: HandModel, unique: int = 2) -> Path:
    """`unique` labels of either split; the training images stand four times."""
    root.mkdir(parents=True)
    hands = [posed_hand(seed, model=model) for seed in range(unique)]
    values = {
        'K': [FREIHAND_CAMERA] * unique,
        'xyz': [hand.mpii.tolist() for hand in hands],
        'verts': [hand.vertices_m.tolist() for hand in hands],
        'scale': [0.03] * unique,
        'mano': [[[0.0] * 61]] * unique,
    }
    for split, versions in (('training', 4), ('evaluation', 1)):
        for name, value in values.items():
            (root / f'{split}_{name}.json').write_text(json.dumps(value))
        for i in range(versions * unique):
            write_jpeg(root / split / 'rgb' / f'{i:08d}.jpg', (224, 224), i)
    return root


def write_dexycb(root: Path, model: HandModel) -> Path:
    """All subjects and sequences; the third subject's 1st, 2nd, 5th and 10th have one frame."""
    intrinsics = root / 'calibration' / 'intrinsics'
    intrinsics.mkdir(parents=True)
    colour = {'fx': 617.3, 'fy': 617.1, 'ppx': 312.4, 'ppy': 241.4, 'coeffs': [0.0] * 5}
    for serial in DEXYCB_SERIALS:
        content = {'color': colour, 'depth': dict(colour, fx=385.0)}
        (intrinsics / f'{serial}_640x480.yml').write_text(yaml.safe_dump(content))
    for side in ('left', 'right'):
        calibration = root / 'calibration' / f'mano_{DEXYCB_SUBJECTS[2]}_{side}'
        calibration.mkdir()
        (calibration / 'mano.yml').write_text(yaml.safe_dump({'betas': BETAS.tolist()}))
    for subject in DEXYCB_SUBJECTS:
        for i in range(100):
            folder = root / subject / f'{subject[:8]}_{140000 + i}'
            folder.mkdir(parents=True)
            filled = subject == DEXYCB_SUBJECTS[2] and i in (0, 1, 4, 9)
            side = 'left' if i % 2 else 'right'
            meta = {'num_frames': int(filled), 'mano_sides': [side],
                    'mano_calib': [f'{subject}_{side}']}  # fmt: skip
            (folder / 'meta.yml').write_text(yaml.safe_dump(meta))
            for serial in DEXYCB_SERIALS if filled else ():
                write_jpeg(folder / serial / 'color_000000.jpg', (480, 640), i)
                pose, vertices = dexycb_pose(model, i)
                joints = model.joint_regressor_21 @ vertices
                np.savez(
                    folder / serial / 'labels_000000.npz',
                    seg=np.zeros((480, 640), np.uint8),
                    pose_m=pose[None].astype(np.float32),
                    joint_3d=joints[None].astype(np.float32),
                    joint_2d=project(joints, DEXYCB_CAMERA)[None].astype(np.float32),
                )
    return root


def dexycb_pose(model: HandModel, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(pose_m [51], vertices [778,3]) as manopth poses MANO_RIGHT (even) or MANO_LEFT (odd)."""
    assert model.pose_space is not None
    mean, components = model.pose_space.mean, model.pose_space.components
    if seed % 2:
        mirrored = np.tile([1.0, -1.0, -1.0], 15)
        mean, components = mean * mirrored, components * mirrored
        model = replace(model.mirrored(), shapedirs=model.shapedirs)  # x not mirrored, as released
    rng = np.random.default_rng(seed)
    turn = Rotation.from_matrix(random_rotation(seed)).as_rotvec()
    fingers = rng.normal(0, 0.1, 45)
    pose = np.concatenate([turn, np.linalg.solve(components.T, fingers - mean)])
    rotations = Rotation.from_rotvec(np.concatenate([turn, fingers]).reshape(16, 3)).as_matrix()
    vertices, joints = model.pose(rotations, BETAS)
    translation = np.array([0.02, -0.03, 0.9]) - joints[9]
    return np.concatenate([pose, translation]), vertices + translation
