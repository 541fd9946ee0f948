"""HO3D, from a tree in its own format, and the reader of its pickles."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hand_samples import (
    assert_anatomy,
    posed_hand,
    project,
    random_rotation,
    reprojection_error_px,
    write_jpeg,
)
from scipy.spatial.transform import Rotation

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.datasets.ho3d import HO3D
from handos_training.data.datasets.joint_orders import (
    HO3D_FROM_MPII,
    MANO_TIP_VERTICES,
    joint_regressor,
)
from handos_training.data.datasets.safe_pickle import load_plain

CAMERA = np.array([[614.6, 0, 320.3], [0, 614.9, 241.6], [0, 0, 1]])
GL = np.array([1, -1, -1])
FRAMES = ('ABF10/0000', 'ABF10/0001', 'MC4/0007')


def write_frame(root: Path, split: str, frame: str, meta: dict[str, object]) -> None:
    sequence, number = frame.split('/')
    write_jpeg(root / split / sequence / 'rgb' / f'{number}.jpg', (480, 640))
    path = root / split / sequence / 'meta' / f'{number}.pkl'
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(meta, protocol=2))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, frame in enumerate(FRAMES):
        hand = posed_hand(seed)
        common = {
            'camMat': CAMERA,
            'objName': '004_sugar_box',
            'objLabel': 3,
            'objRot': np.zeros((3, 1)),
            'objTrans': np.zeros(3, np.float32),
        }
        solved = {
            'handJoints3D': hand.mano * GL,
            'handPose': np.zeros(48),
            'handBeta': np.zeros(10),
        }
        if seed == 1:  # the optimisation failed on this frame
            solved = dict.fromkeys(solved) | {'objRot': None, 'objTrans': None}
        trans = {'handTrans': np.zeros(3)}
        write_frame(tmp_path, 'train', frame, {**common, **solved, **trans})
        pixels = project(hand.vertices_m, CAMERA)
        held_out = {
            'handJoints3D': hand.mano[0] * GL,  # the wrist only
            'handBoundingBox': [*pixels.min(0).tolist(), *pixels.max(0).tolist()],
        }
        write_frame(tmp_path, 'evaluation', frame, {**common, **held_out})
    for split in ('train', 'evaluation'):
        (tmp_path / f'{split}.txt').write_text('\n'.join(FRAMES) + '\n')
    return tmp_path


def test_train_labels_in_our_axes_and_order(root: Path) -> None:
    dataset = open_dataset('ho3d', root)
    assert len(dataset) == 3 and dataset.sequence(2) == 'MC4'
    for index in (0, 2):
        sample = dataset[index]
        assert len(sample.hands) == 1 and not sample.hands.is_left[0]
        assert sample.hands.has_side[0] and not sample.all_hands_labelled
        joints = (sample.hands.joints_m[0] + sample.hands.translation_m[0]).numpy()
        np.testing.assert_allclose(joints, posed_hand(index).mpii, atol=1e-6)
        assert_anatomy(joints)
        assert reprojection_error_px(sample) < 1
        assert (joints[:, 2] > 0).all()


def test_an_unsolved_frame_has_no_hands(root: Path) -> None:
    sample = HO3D(root)[1]
    assert len(sample.hands) == 0 and not sample.all_hands_labelled


def test_mesh_is_posed_with_the_users_mano(root: Path) -> None:
    model = HandModel.embedded()
    pose = Rotation.from_rotvec(np.random.default_rng(3).normal(0, 0.1, (16, 3)))
    pose_matrices = pose.as_matrix()
    pose_matrices[0] = random_rotation(5)
    betas, trans = np.linspace(-1, 1, 10), np.array([0.05, -0.1, -0.6])
    vertices, joints = model.pose(pose_matrices, betas)
    meta = {
        'camMat': CAMERA,
        'objRot': np.zeros(3),
        'handJoints3D': (joints + trans)[list(HO3D_FROM_MPII)],
        'handPose': Rotation.from_matrix(pose_matrices).as_rotvec().ravel(),
        'handBeta': betas,
        'handTrans': trans,
    }
    write_frame(root, 'train', FRAMES[0], meta)
    assert not HO3D(root)[0].hands.has_vertices_m[0]
    hands = HO3D(root, mano=model)[0].hands
    assert hands.has_vertices_m[0]
    expected = (vertices + trans) * GL
    np.testing.assert_allclose(
        (hands.vertices_m + hands.translation_m[:, None])[0], expected, atol=1e-6
    )
    np.testing.assert_allclose(model.joint_regressor_21 @ hands.vertices_m[0].numpy(),
                               hands.joints_m[0], atol=1e-5)  # fmt: skip


def test_evaluation_before_and_after_the_release_of_its_labels(root: Path) -> None:
    dataset = open_dataset('ho3d', root, 'test')
    hands = dataset[0].hands
    wrist = project(posed_hand(0).mpii[:1], CAMERA)[0]
    assert hands.has_joint_px[0].tolist() == [True] + [False] * 20
    np.testing.assert_allclose(hands.joints_px[0, 0], wrist, atol=0.01)
    assert not hands.has_joints_m[0]
    box = project(posed_hand(0).vertices_m, CAMERA)
    np.testing.assert_allclose(
        hands.amodal_boxes_xyxy_px[0], [*box.min(0), *box.max(0)], atol=0.01
    )
    xyz = [(posed_hand(seed).mano * GL).tolist() for seed in range(3)]
    verts = [(posed_hand(seed).vertices_m * GL).tolist() for seed in range(3)]
    (root / 'evaluation_xyz.json').write_text(json.dumps(xyz))
    (root / 'evaluation_verts.json').write_text(json.dumps(verts))
    sample = HO3D(root, 'evaluation', HandModel.embedded())[2]
    joints = (sample.hands.joints_m[0] + sample.hands.translation_m[0]).numpy()
    np.testing.assert_allclose(joints, posed_hand(2).mpii, atol=1e-6)
    assert sample.hands.has_vertices_m[0] and reprojection_error_px(sample) < 1
    (root / 'evaluation_xyz.json').write_text(json.dumps(xyz[:2]))
    with pytest.raises(UserError, match='different versions'):
        HO3D(root, 'evaluation')


def test_png_of_version_2(root: Path) -> None:
    folder = root / 'train' / 'MC4' / 'rgb'
    (folder / '0007.jpg').unlink()
    write_jpeg(folder / '0007.png', (480, 640))
    assert HO3D(root)[2].image.shape == (3, 480, 640)


def test_a_wrong_list_is_said(root: Path) -> None:
    (root / 'train.txt').write_text('0000\n')
    with pytest.raises(UserError, match='lines like'):
        HO3D(root)
    (root / 'train.txt').unlink()
    with pytest.raises(UserError, match='is missing'):
        HO3D(root)


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ('echo no >&2',)


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_pickles_of_plain_data_are_read(tmp_path: Path, protocol: int) -> None:
    value = {
        'a': np.arange(6.0).reshape(2, 3),
        'b': np.asfortranarray(np.arange(6, dtype='>f4').reshape(2, 3)),
        'c': [np.float64(1.5), None, 'text', (3, True)],
        'd': np.zeros((0, 3), np.int32),
    }
    path = tmp_path / 'x.pkl'
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    read = load_plain(path)
    for key in 'abd':
        np.testing.assert_array_equal(read[key], value[key])
    assert read['c'] == [1.5, None, 'text', (3, True)]


@pytest.mark.parametrize('value', [Attack(), np.array([Attack()], object), {'x': print}])
def test_pickles_that_name_anything_else_are_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / 'x.pkl'
    path.write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match=r'x\.pkl'):
        load_plain(path)


def test_damaged_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'x.pkl'
    whole = pickle.dumps({'a': np.arange(100.0)}, protocol=2)
    for data in (b'', b'junk', whole[:-40], whole.replace(b'f8', b'O8')):
        path.write_bytes(data)
        with pytest.raises(pickle.UnpicklingError):
            load_plain(path)


def test_each_dataset_has_its_own_tips() -> None:
    model = HandModel.embedded()
    for name, tips in MANO_TIP_VERTICES.items():
        regressor = joint_regressor(model, name)
        assert regressor.shape == (21, 778)
        np.testing.assert_allclose(
            (regressor @ model.v_template)[[4, 8, 12, 16, 20]], model.v_template[list(tips)]
        )
        np.testing.assert_allclose(regressor[[0, 9]], model.joint_regressor_21[[0, 9]])
