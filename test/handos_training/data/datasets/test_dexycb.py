"""DexYCB, from a tree in its own format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hand_samples import (
    assert_anatomy,
    posed_hand,
    project,
    reprojection_error_px,
    write_jpeg,
)
from mini_datasets import dexycb_pose, write_dexycb, write_mano

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.datasets.dexycb import SERIALS, SPLITS, DexYCB

CAMERA = np.array([[617.3, 0, 312.4], [0, 617.1, 241.4], [0, 0, 1]])
SUBJECT = '20200928-subject-07'  # the only one of s1_val
FRAMES = 3


def sequence_name(index: int) -> str:
    return f'20200928_{140000 + index}'


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('dexycb')
    intrinsics = root / 'calibration' / 'intrinsics'
    intrinsics.mkdir(parents=True)
    colour = {'fx': 617.3, 'fy': 617.1, 'ppx': 312.4, 'ppy': 241.4, 'coeffs': [0.0] * 5}
    for serial in SERIALS:
        content = {'color': colour, 'depth': dict(colour, fx=385.0)}
        (intrinsics / f'{serial}_640x480.yml').write_text(yaml.safe_dump(content))
    for i in range(100):
        folder = root / SUBJECT / sequence_name(i)
        folder.mkdir(parents=True)
        side = 'left' if i % 2 else 'right'
        meta = {
            'serials': list(SERIALS), 'num_frames': FRAMES, 'num_extra_frames': 0,
            'ycb_ids': [1, 5], 'ycb_grasp_ind': 0, 'mano_sides': [side],
            'mano_calib': [f'20200928-subject-07_{side}'],
        }  # fmt: skip
        (folder / 'meta.yml').write_text(yaml.safe_dump(meta))
    for i, serial, frame in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 2), (99, 7, 2)):
        folder = root / SUBJECT / sequence_name(i) / SERIALS[serial]
        write_jpeg(folder / f'color_{frame:06d}.jpg', (480, 640))
        joints = posed_hand(i, left=bool(i % 2)).mpii[None].astype(np.float32)
        pixels = project(joints, CAMERA).astype(np.float32)
        if frame == 1:
            joints, pixels = np.full_like(joints, -1), np.full_like(pixels, -1)
        np.savez_compressed(
            folder / f'labels_{frame:06d}.npz',
            seg=np.zeros((480, 640), np.uint8),
            pose_y=np.zeros((2, 3, 4), np.float32),
            pose_m=np.zeros((1, 51), np.float32),
            joint_3d=joints,
            joint_2d=pixels,
        )
    return root


@pytest.fixture(scope='module')
def dataset(root: Path) -> DexYCB:
    dataset = open_dataset('dexycb', root, 's1_val')
    assert isinstance(dataset, DexYCB)
    return dataset


def test_index_counts_sequences_then_cameras_then_frames(dataset: DexYCB) -> None:
    assert len(dataset) == 100 * 8 * FRAMES
    assert dataset[FRAMES].name == f'dexycb/{SUBJECT}/{sequence_name(0)}/{SERIALS[1]}/000000'
    last = len(dataset) - 1
    assert dataset[last].name == f'dexycb/{SUBJECT}/{sequence_name(99)}/{SERIALS[7]}/000002'
    assert dataset.sequence(last) == f'{SUBJECT}/{sequence_name(99)}/{SERIALS[7]}'
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_right_and_left_hands(dataset: DexYCB) -> None:
    left = 8 * FRAMES + 2  # the second sequence, first camera, third frame
    for index, seed in ((0, 0), (left, 1)):
        sample = dataset[index]
        hands = sample.hands
        assert hands.is_left.tolist() == [bool(seed)] and hands.has_side[0]
        assert not sample.all_hands_labelled and not hands.has_vertices_m[0]
        assert reprojection_error_px(sample) < 1
        joints = (hands.joints_m[0] + hands.translation_m[0]).numpy()
        np.testing.assert_allclose(joints, posed_hand(seed, left=bool(seed)).mpii, atol=1e-6)
        assert_anatomy(joints)


def test_meshes_of_the_users_mano(tmp_path: Path) -> None:
    model = HandModel.from_mano(write_mano(tmp_path))
    root = write_dexycb(tmp_path / 'dexycb', model)
    assert len(open_dataset('dexycb', root, 's0_train', model)) == 2 * 8
    dataset = open_dataset('dexycb', root, 's0_test', model)
    assert len(dataset) == 2 * 8
    for index, seed in ((0, 4), (8, 9)):  # a right hand and a left one
        hands = dataset[index].hands
        assert hands.has_vertices_m[0] and hands.is_left[0] == bool(seed % 2)
        vertices = (hands.vertices_m[0] + hands.translation_m[0]).numpy()
        np.testing.assert_allclose(vertices, dexycb_pose(model, seed)[1], atol=1e-6)
    wider = replace(model, v_template=model.v_template * [1.0, 1.2, 1.0])
    with pytest.raises(ValueError, match='mm off its joints'):
        open_dataset('dexycb', root, 's0_test', wider)[0]
    with pytest.raises(UserError, match='hands_components'):
        open_dataset('dexycb', root, 's0_test', HandModel.embedded())


def test_missing_labels_and_files(dataset: DexYCB) -> None:
    sample = dataset[1]
    assert len(sample.hands) == 0 and not sample.all_hands_labelled
    with pytest.raises(OSError, match=r'color_000002\.jpg'):
        dataset[2]


def test_splits_do_not_overlap() -> None:
    for setup in ('s0', 's1', 's2', 's3'):
        seen = set()
        for part in ('train', 'val', 'test'):
            subjects, cameras, sequences = SPLITS[f'{setup}_{part}']
            cells = {(s, c, q) for s in subjects for c in cameras for q in sequences}
            assert not cells & seen
            seen |= cells
        assert len(seen) == 10 * 8 * 100
    assert len(SPLITS['s0_train'][2]) == 80 and len(SPLITS['s0_test'][2]) == 20


def test_an_incomplete_subject_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / 'calibration').symlink_to(root / 'calibration')
    (tmp_path / SUBJECT / sequence_name(0)).mkdir(parents=True)
    with pytest.raises(UserError, match='1 sequences'):
        DexYCB(tmp_path, 's1_val')
    with pytest.raises(UserError, match='is missing'):
        DexYCB(tmp_path, 's0_test')
