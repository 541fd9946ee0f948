"""HInt, from a tree in its own format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hand_samples import CAMERA, assert_anatomy, posed_hand, project, truncate, write_jpeg

from handos_model.errors import UserError
from handos_model.types import Camera
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.datasets.hint import HInt

OCCLUDED, ABSENT = (7, 8), (20,)


def write_hand(folder: Path, stem: str, existence: bool = True, image: bool = True) -> None:
    pixels = seen_from_the_palm()
    entry = {
        'bbox': [[*(pixels.min(0) - 5).tolist(), *(pixels.max(0) + 5).tolist()]],
        'keypoints': pixels.tolist(),
        'occlusion': [int(j in OCCLUDED) for j in range(21)],
    }
    if existence:
        entry['existence'] = [int(j not in ABSENT) for j in range(21)]
    folder.mkdir(exist_ok=True)
    (folder / f'{stem}.json').write_text(json.dumps([entry]))
    if image:
        write_jpeg(folder / f'{stem}.jpg', (480, 640))


def seen_from_the_palm() -> np.ndarray:
    """Pixels of a hand whose plane faces the camera."""
    joints = posed_hand(0).mpii
    x = joints[9] - joints[0]
    x /= np.linalg.norm(x)
    z = np.cross(x, joints[5] - joints[17])
    z /= np.linalg.norm(z)
    flat = (joints - joints.mean(0)) @ np.stack([x, np.cross(z, x), z]).T + [0, 0, 0.5]
    return project(flat, CAMERA)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in ('TRAIN', 'VAL', 'TEST'):
        write_hand(tmp_path / f'{part}_newdays_img', 'ND_abc_frame000301_r')
        write_hand(tmp_path / f'{part}_newdays_img', 'ND_abc_frame000301_l')
        write_hand(tmp_path / f'{part}_epick_img', 'EK_0064_P03_10_frame_0000000249_r', False)
        write_hand(tmp_path / f'{part}_ego4d_img', '0bc8996b_4232_post_frame_l', image=False)
    return tmp_path


def test_labels(root: Path) -> None:
    dataset = open_dataset('hint', root, 'TEST_newdays')
    assert len(dataset) == 2
    for index, left in enumerate((True, False)):
        sample = dataset[index]
        hands = sample.hands
        assert hands.is_left.tolist() == [left] and hands.has_side[0]
        assert not sample.all_hands_labelled  # the frame shows the other hand, too
        np.testing.assert_allclose(hands.joints_px[0][:20], seen_from_the_palm()[:20], atol=1e-3)
        assert_anatomy(np.concatenate([hands.joints_px[0][:20], seen_from_the_palm()[20:]]))
        assert np.flatnonzero(~hands.has_joint_px[0]).tolist() == list(ABSENT)
        assert np.flatnonzero(~hands.joint_visible[0]).tolist() == [*OCCLUDED, *ABSENT]
        assert hands.has_visibility[0] and not hands.has_joints_m[0]
        np.testing.assert_allclose(
            hands.boxes_xyxy_px[0, :2], seen_from_the_palm().min(0) - 5, atol=1e-3
        )
        np.testing.assert_allclose(
            sample.camera_matrix_px, Camera.uncalibrated(640, 480).matrix_px
        )


def test_existence_may_be_missing(root: Path) -> None:
    assert HInt(root, 'TEST_epick')[0].hands.has_joint_px.all()


def test_splits(root: Path) -> None:
    assert len(HInt(root, 'train')) == 3  # Ego4D without images is left out
    assert len(HInt(root, 'TEST_newdays+TEST_epick')) == 3
    with pytest.raises(UserError, match='Ego4D'):
        HInt(root, 'TEST_ego4d')
    with pytest.raises(UserError, match='is missing'):
        HInt(root, 'TEST_ego4d_seq')


def test_damage_is_named(root: Path) -> None:
    folder = root / 'TEST_newdays_img'
    (folder / 'ND_abc_frame000301_l.json').write_text('[]')
    truncate(folder / 'ND_abc_frame000301_r.jpg')
    write_hand(folder, 'ND_z_frame000001')
    write_hand(folder, 'ND_y_frame000001_r')
    broken = json.loads((folder / 'ND_y_frame000001_r.json').read_text())
    broken[0]['keypoints'].pop()
    (folder / 'ND_y_frame000001_r.json').write_text(json.dumps(broken))
    dataset = HInt(root, 'TEST_newdays')
    for index, message in enumerate(('list of one', 'truncated', 'keypoints', '_l or _r')):
        with pytest.raises(ValueError, match=message):
            dataset[index]
