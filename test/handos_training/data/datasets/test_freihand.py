"""FreiHAND, from a tree in its own format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_samples import (
    PosedHand,
    assert_anatomy,
    posed_hand,
    project,
    reprojection_error_px,
    truncate,
    write_jpeg,
)

from handos_model.errors import UserError
from handos_model.geometry.placement import boundary_vertices, signed_volume
from handos_model.hand.model import HandModel
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.datasets.freihand import FreiHAND

UNIQUE = 3
CAMERA = [[480.0, 0, 112.0], [0, 480.5, 112.0], [0, 0, 1]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, images in (('training', 4 * UNIQUE), ('evaluation', UNIQUE)):
        hands = [posed_hand(seed) for seed in range(UNIQUE)]
        values = {
            'K': [CAMERA] * UNIQUE,
            'xyz': [hand.mpii.tolist() for hand in hands],
            'verts': [hand.vertices_m.tolist() for hand in hands],
            'scale': [0.03] * UNIQUE,
            'mano': [[[0.0] * 61]] * UNIQUE,
        }
        for name, value in values.items():
            (tmp_path / f'{split}_{name}.json').write_text(json.dumps(value))
        for i in range(images):
            write_jpeg(tmp_path / split / 'rgb' / f'{i:08d}.jpg', (224, 224), i)
    return tmp_path


def truth(index: int) -> PosedHand:
    return posed_hand(index % UNIQUE)


def test_labels_are_the_files(root: Path) -> None:
    dataset = open_dataset('freihand', root)
    assert len(dataset) == 4 * UNIQUE
    for index in range(len(dataset)):
        sample = dataset[index]
        hands = sample.hands
        assert sample.image.shape == (3, 224, 224) and sample.all_hands_labelled
        assert len(hands) == 1 and hands.has_side[0] and not hands.is_left[0]
        assert not hands.has_visibility[0] and not hands.has_vertices_m[0]
        assert reprojection_error_px(sample) < 1
        joints = (hands.joints_m[0] + hands.translation_m[0]).numpy()
        np.testing.assert_allclose(joints, truth(index).mpii, atol=1e-6)
        assert_anatomy(joints)
        assert torch.equal(hands.joints_m[0, 9], torch.zeros(3))
        pixels = project(truth(index).vertices_m, np.array(CAMERA))
        box = hands.amodal_boxes_xyxy_px[0].numpy()
        overshoot = np.concatenate([pixels.min(0) - box[:2], box[2:] - pixels.max(0)])
        assert np.abs(overshoot).max() < 0.15 * (box[2:] - box[:2]).max()
    assert sample.name == 'freihand/training/00000011'


def test_versions_select_images_not_labels(root: Path) -> None:
    both = FreiHAND(root, versions=('gs', 'auto'))
    assert [both[i].name[-8:] for i in (0, 2, 3, 5)] == [
        '00000000', '00000002', '00000009', '00000011',
    ]  # fmt: skip
    assert torch.equal(both[0].hands.joints_m, both[3].hands.joints_m)


def test_vertices_are_labels_only_of_the_users_mano(root: Path) -> None:
    model = HandModel.embedded()  # stands for MANO here: same counts
    for _ in range(2):  # the second time from the .npy
        dataset = FreiHAND(root, mano=model)
        hands = dataset[1].hands
        assert hands.has_vertices_m[0]
        vertices = (hands.vertices_m + hands.translation_m[:, None])[0].numpy()
        np.testing.assert_allclose(vertices, truth(1).vertices_m, atol=1e-6)
        boundary = boundary_vertices(model.faces)
        assert signed_volume(vertices[None], model.faces, boundary)[0] > 0  # right
        pixels = project(vertices, np.array(CAMERA))
        np.testing.assert_allclose(
            hands.amodal_boxes_xyxy_px[0], [*pixels.min(0), *pixels.max(0)], atol=1e-3
        )
    assert (root / 'training_verts.npy').exists()


def test_evaluation_with_and_without_labels(root: Path) -> None:
    dataset = open_dataset('freihand', root, 'test')
    assert len(dataset) == UNIQUE and len(dataset[0].hands) == 1
    (root / 'evaluation_xyz.json').unlink()
    sample = open_dataset('freihand', root, 'evaluation')[0]
    assert len(sample.hands) == 0 and not sample.all_hands_labelled


def test_damage_is_named(root: Path) -> None:
    truncate(root / 'training' / 'rgb' / '00000001.jpg')
    (root / 'training' / 'rgb' / '00000002.jpg').unlink()
    xyz = json.loads((root / 'training_xyz.json').read_text())
    xyz[0][3][1] = float('nan')
    (root / 'training_xyz.json').write_text(json.dumps(xyz))
    dataset = FreiHAND(root)
    with pytest.raises(ValueError, match='xyz'):
        dataset[0]
    xyz[0] = xyz[0][:20]
    (root / 'training_xyz.json').write_text(json.dumps(xyz))
    with pytest.raises(ValueError, match='xyz'):
        FreiHAND(root)[0]
    assert len(FreiHAND(root)[UNIQUE + 1].hands) == 1
    with pytest.raises(ValueError, match='truncated'):
        dataset[1]
    with pytest.raises(OSError, match=r'00000002\.jpg'):
        dataset[2]


def test_a_wrong_tree_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no split'):
        open_dataset('freihand', root, 'val')
    with pytest.raises(UserError, match='is no folder'):
        open_dataset('freihand', root / 'nowhere')
    with pytest.raises(UserError, match='no dataset'):
        open_dataset('freehand', root)
    (root / 'training_K.json').write_text('[')
    with pytest.raises(UserError, match='not valid JSON'):
        FreiHAND(root)
    (root / 'training_K.json').write_text(json.dumps([CAMERA]))
    with pytest.raises(UserError, match='different releases'):
        FreiHAND(root)
    (root / 'training_K.json').unlink()
    with pytest.raises(UserError, match=r'training_K\.json is missing'):
        FreiHAND(root)
