"""OneHand10K, from a tree in the format of its usual annotation files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hand_samples import posed_hand, project, write_jpeg

from handos_model.errors import UserError
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.datasets.onehand10k import OneHand10K

VIEW = np.array([[400.0, 0, 300], [0, 400.0, 200], [0, 0, 1]])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    points = project(posed_hand(0).mpii, VIEW)
    rows = np.column_stack([points, np.ones(21)])
    rows[[3, 4]] = 0
    low, high = points.min(0), points.max(0)
    (tmp_path / 'annotations').mkdir()
    for split, folder in (('train', 'Train'), ('test', 'Test')):
        names = [f'{folder}/source/{i}.jpg' for i in (7, 8)]
        content = {
            'images': [
                {'id': i, 'file_name': name, 'height': 400, 'width': 600}
                for i, name in enumerate(names)
            ],
            'annotations': [
                {
                    'id': 0, 'image_id': 1, 'category_id': 1, 'iscrowd': 0, 'area': 1.0,
                    'bbox': [*low.tolist(), *(high - low).tolist()],
                    'keypoints': rows.ravel().tolist(),
                }
            ],
            'categories': [{'id': 1, 'name': 'hand'}],
        }  # fmt: skip
        path = tmp_path / 'annotations' / f'onehand10k_{split}.json'
        path.write_text(json.dumps(content))
        for name in names:
            write_jpeg(tmp_path / name, (400, 600))
    return tmp_path


def test_labels(root: Path) -> None:
    for split, folder in (('train', 'Train'), ('test', 'Test')):
        dataset = open_dataset('onehand10k', root, split)
        assert len(dataset) == 1  # the other image has no label
        sample = dataset[0]
        hands = sample.hands
        assert sample.name == f'onehand10k/{folder}/source/8.jpg'
        assert not hands.has_side[0] and not hands.has_visibility[0]
        assert not sample.all_hands_labelled
        assert np.flatnonzero(~hands.has_joint_px[0]).tolist() == [3, 4]
        known = hands.has_joint_px[0].numpy()
        expected = project(posed_hand(0).mpii, VIEW)
        np.testing.assert_allclose(hands.joints_px[0][known], expected[known], atol=1e-3)
        box = np.concatenate([expected.min(0), expected.max(0)]) - 0.5
        np.testing.assert_allclose(hands.amodal_boxes_xyxy_px[0], box, atol=1e-3)


def test_a_missing_file_is_said(root: Path) -> None:
    (root / 'annotations' / 'onehand10k_test.json').unlink()
    with pytest.raises(UserError, match=r'onehand10k_test\.json is missing'):
        OneHand10K(root, 'test')
    (root / 'Train' / 'source' / '8.jpg').unlink()
    with pytest.raises(OSError, match=r'8\.jpg'):
        OneHand10K(root)[0]
