"""COCO-WholeBody, from a tree in its own format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hand_samples import assert_anatomy, posed_hand, project, write_jpeg

from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.datasets.coco_wholebody import COCOWholeBody

VIEW = np.array([[400.0, 0, 300], [0, 400.0, 200], [0, 0, 1]])


def keypoints(shift: float) -> np.ndarray:
    joints = posed_hand(0).mpii
    x = joints[9] - joints[0]
    z = np.cross(x, joints[5] - joints[17])
    axes = np.stack([x, np.cross(z, x), z])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return project((joints - joints.mean(0)) @ axes.T + [shift, 0, 0.6], VIEW)


def person(image: int, left: bool, right: bool) -> dict[str, object]:
    entry: dict[str, object] = {'image_id': image, 'id': image * 10, 'iscrowd': 0, 'bbox': [0] * 4}
    for side, valid, shift in (('left', left, -0.1), ('right', right, 0.1)):
        points = keypoints(shift)
        v = np.random.default_rng(0).uniform(0.1, 0.9, 21)  # as most are in the released file
        v[4], v[5], v[6] = 2, 1, 0
        points[6] = 0
        low, high = keypoints(shift).min(0) - 4, keypoints(shift).max(0) + 4
        entry |= {
            f'{side}hand_valid': valid,
            f'{side}hand_box': [*low.tolist(), *(high - low).tolist()] if valid else [0.0] * 4,
            f'{side}hand_kpts': np.column_stack([points, v]).ravel().tolist()
            if valid
            else [0.0] * 63,
        }
    return entry


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = {1: '000000000139.jpg', 2: '000000000285.jpg', 3: '000000000632.jpg'}
    content = {
        'info': {},
        'images': [
            {'id': i, 'file_name': name, 'height': 400, 'width': 600} for i, name in names.items()
        ],
        'annotations': [person(1, True, True), person(1, False, True), person(2, False, False)],
    }
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        path = tmp_path / 'annotations' / f'coco_wholebody_{split}_v1.0.json'
        path.write_text(json.dumps(content))
        for name in names.values():
            write_jpeg(tmp_path / f'{split}2017' / name, (400, 600))
    return tmp_path


def test_valid_hands_only(root: Path) -> None:
    dataset = open_dataset('coco_wholebody', root)
    assert len(dataset) == 1  # the second has no valid hand, the third nobody
    sample = dataset[0]
    assert sample.name == 'coco_wholebody/train/000000000139'
    hands = sample.hands
    assert hands.is_left.tolist() == [True, False, False] and hands.has_side.all()
    assert not sample.all_hands_labelled and not hands.has_joints_m.any()
    for n, shift in enumerate((-0.1, 0.1, 0.1)):
        expected = keypoints(shift)
        assert_anatomy(expected)
        known = hands.has_joint_px[n].numpy()
        assert np.flatnonzero(~known).tolist() == [6]
        np.testing.assert_allclose(hands.joints_px[n][known], expected[known], atol=1e-3)
        assert not hands.has_visibility[n]
        # COCO boxes count from the corner of the first pixel, ours from its centre.
        box = np.concatenate([expected.min(0) - 4.5, expected.max(0) + 3.5])
        np.testing.assert_allclose(hands.boxes_xyxy_px[n], box, atol=1e-3)


def test_photographs_without_people_are_negatives_on_request(root: Path) -> None:
    dataset = COCOWholeBody(root, 'val', negatives=True)
    assert len(dataset) == 2
    empty = dataset[1]
    assert empty.all_hands_labelled and len(empty.hands) == 0
