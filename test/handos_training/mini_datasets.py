"""Datasets of a few images in their true layouts, and the files that a user brings with them."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from hand_samples import posed_hand, project, random_rotation, write_jpeg
from scipy.spatial.transform import Rotation

from handos_model.hand.model import HandModel
from handos_training.data.datasets.joint_orders import HO3D_FROM_MPII

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


def write_ho3d(root: Path, model: HandModel) -> Path:
    """Two frames of either split, the evaluation's labels released."""
    to_opengl = np.array([1, -1, -1])
    camera = np.array([[614.0, 0, 320.0], [0, 614.0, 240.0], [0, 0, 1]])
    truth: dict[str, list[object]] = {'xyz': [], 'verts': []}
    for split, sequence in (('train', 'ABF10'), ('evaluation', 'AP10')):
        folder = root / split / sequence
        (folder / 'meta').mkdir(parents=True)
        for frame in range(2):
            rng = np.random.default_rng(frame)
            pose, betas = rng.normal(0, 0.1, 48), rng.normal(0, 0.5, 10)
            rotations = Rotation.from_rotvec(pose.reshape(16, 3)).as_matrix()
            vertices, joints = model.pose(rotations, betas)
            moved = np.array([0.02, 0.01, -0.6]) - joints[9]
            vertices, joints = vertices + moved, (joints + moved)[list(HO3D_FROM_MPII)]
            pixels = project(vertices * to_opengl, camera)
            meta = {'camMat': camera, 'handJoints3D': joints, 'objRot': np.zeros((3, 1)),
                    'handPose': pose, 'handBeta': betas, 'handTrans': moved}  # fmt: skip
            if split == 'evaluation':
                box = [*pixels.min(0).tolist(), *pixels.max(0).tolist()]
                meta = {'camMat': camera, 'handJoints3D': joints[0], 'handBoundingBox': box}
                truth['xyz'].append(joints.tolist())
                truth['verts'].append(vertices.tolist())
            (folder / 'meta' / f'{frame:04d}.pkl').write_bytes(pickle.dumps(meta, 2))
            write_jpeg(folder / 'rgb' / f'{frame:04d}.jpg', (480, 640), frame)
        (root / f'{split}.txt').write_text(f'{sequence}/0000\n{sequence}/0001\n')
    for name, value in truth.items():
        (root / f'evaluation_{name}.json').write_text(json.dumps(value))
    return root


def _photographed(seed: int) -> np.ndarray:
    """[21,2] joints of a hand in a photograph of 320 x 240."""
    return project(posed_hand(seed).mpii, np.array([[320.0, 0, 160], [0, 320.0, 120], [0, 0, 1]]))


def write_hint(root: Path) -> Path:
    """Two hands of each part and source."""
    for part in ('TRAIN', 'VAL', 'TEST'):
        for source in ('newdays', 'epick', 'ego4d'):
            for seed, stem in enumerate(('frame_r', 'frame_l')):
                pixels = _photographed(seed)
                folder = root / f'{part}_{source}_img'
                write_jpeg(folder / f'{stem}.jpg', (240, 320), seed)
                entry = {'bbox': [[*pixels.min(0), *pixels.max(0)]], 'keypoints': pixels.tolist(),
                         'occlusion': [0] * 11 + [1] * 10}  # fmt: skip
                (folder / f'{stem}.json').write_text(json.dumps([entry]))
    return root


def write_coco(root: Path) -> Path:
    """One photograph of a person whose right hand is labelled, in either split."""
    pixels = _photographed(2)
    low, size = pixels.min(0), np.ptp(pixels, axis=0)
    person: dict[str, object] = {'image_id': 1, 'id': 10}
    for side, valid in (('left', False), ('right', True)):
        points = np.column_stack([pixels, np.full(21, 0.4)]) * valid
        person |= {f'{side}hand_valid': valid, f'{side}hand_kpts': points.ravel().tolist(),
                   f'{side}hand_box': [*low.tolist(), *size.tolist()]}  # fmt: skip
    content = {'images': [{'id': 1, 'file_name': '000000000139.jpg'}], 'annotations': [person]}
    (root / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        path = root / 'annotations' / f'coco_wholebody_{split}_v1.0.json'
        path.write_text(json.dumps(content))
        write_jpeg(root / f'{split}2017' / '000000000139.jpg', (240, 320))
    return root


def write_onehand10k(root: Path) -> Path:
    """Two images of either split, as the MMPose project annotates them."""
    (root / 'annotations').mkdir(parents=True)
    for split in ('train', 'test'):
        images, hands = [], []
        for i in range(2):
            name = f'{split.capitalize()}/source/{i}.jpg'
            write_jpeg(root / name, (240, 320), i)
            pixels = _photographed(i)
            box = [*pixels.min(0).tolist(), *np.ptp(pixels, axis=0).tolist()]
            points = np.column_stack([pixels, np.ones(21)]).ravel().tolist()
            images.append({'id': i, 'file_name': name})
            hands.append({'image_id': i, 'bbox': box, 'keypoints': points})
        path = root / 'annotations' / f'onehand10k_{split}.json'
        path.write_text(json.dumps({'images': images, 'annotations': hands}))
    return root


def write_h2o3d(root: Path, model: HandModel) -> Path:
    """Two frames with both hands, as MANO_RIGHT and the released MANO_LEFT pose them, and a third
    that was not solved."""
    folder = root / 'train' / 'SHSU10'
    (folder / 'meta').mkdir(parents=True)
    models = {'right': model, 'left': replace(model.mirrored(), shapedirs=model.shapedirs)}
    for frame in range(3):
        rng = np.random.default_rng(frame)
        betas = rng.normal(0, 0.5, 10)
        meta = {'camMat': np.array([[614.0, 0, 320.0], [0, 614.0, 240.0], [0, 0, 1]]),
                'handBeta': betas, 'objRot': np.zeros((3, 1)) if frame < 2 else None}  # fmt: skip
        for side, x in (('right', -0.15), ('left', 0.15)):
            pose = rng.normal(0, 0.2, 48)
            rotations = Rotation.from_rotvec(pose.reshape(16, 3)).as_matrix()
            joints = models[side].pose(rotations, betas)[1]
            moved = np.array([x, 0.01, -0.7]) - joints[9]
            meta |= {f'{side}HandPose': pose, f'{side}HandTrans': moved,
                     f'{side}HandJoints3D': (joints + moved)[list(HO3D_FROM_MPII)]}  # fmt: skip
        (folder / 'meta' / f'{frame:04d}.pkl').write_bytes(pickle.dumps(meta, 2))
        write_jpeg(folder / 'rgb' / f'{frame:04d}.jpg', (480, 640), frame)
    (root / 'train.txt').write_text('\n'.join(f'SHSU10/{frame:04d}' for frame in range(3)))
    return root


def write_comphand(root: Path, model: HandModel) -> Path:
    """Two views of a left hand, and one of those that the authors leave out."""
    views, meshes = (
        root / 'data' / 'base_pose' / part / 'fist' for part in ('pic256', 'model_mano')
    )
    meshes.mkdir(parents=True)
    np.save(root / 'K256.npy', np.array([[300.0, 0, 127.0], [0, 300.0, 128.0], [0, 0, 1]]))
    theirs = [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 8, 12, 20, 16, 4]
    np.save(root / 'j_reg.npy', HandModel.embedded().joint_regressor_21[theirs])
    for number in (0, 7, 215):
        write_jpeg(views / 'room' / f'view.{number}.png', (256, 256), number)
        vertices = posed_hand(number, left=True, model=model).vertices_m
        lines = [f'v {x:.6f} {y:.6f} {z:.6f}' for x, y, z in vertices]
        (meshes / f'{number}.obj').write_text('\n'.join(['# a hand', *lines, 'f 1 2 3']))
    return root
