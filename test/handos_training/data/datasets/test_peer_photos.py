"""Weak labels: pixel conventions, drawn boxes, and the recordings kept for validation."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from handos_model.errors import UserError
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.datasets.peer_photos import (
    VALIDATION_PREFIXES,
    VALIDATION_SETS,
    Negatives,
    PeerPhotos,
)


def write_photo(root: Path, name: str, hands: list[dict], boxes: list[list[int]] | None) -> dict:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((60, 80, 3), 127, np.uint8))
    if boxes is not None:
        objects = ''.join(
            '<object><bndbox>'
            + ''.join(
                f'<{k}>{v}</{k}>'
                for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), box, strict=True)
            )
            + '</bndbox></object>'
            for box in boxes
        )
        path.with_suffix('.xml').write_text(f'<annotation>{objects}</annotation>')
    return {'width': 80, 'height': 60, 'hands': hands}


def peer_hand(offset: float, side: str = 'Left', score: float = 0.95) -> dict:
    x = np.linspace(0, 20, 21) + offset
    return {
        'handedness_unmirrored': side,
        'score': score,
        'landmarks_px': np.stack([x, x, 0 * x], 1).tolist(),
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = 'SubhiH-HandsDataset/images/train/'
    images = {
        folder + '3_a.jpg': write_photo(
            tmp_path, folder + '3_a.jpg', [peer_hand(10)], [[11, 11, 31, 31], [60, 40, 75, 55]]
        ),
        folder + VALIDATION_PREFIXES[0] + 'b.jpg': write_photo(
            tmp_path, folder + VALIDATION_PREFIXES[0] + 'b.jpg', [peer_hand(10)], [[1, 1, 9, 9]]
        ),
        'sign-digits/1.jpg': write_photo(
            tmp_path, 'sign-digits/1.jpg', [peer_hand(30, 'Right', 0.6)], None
        ),
        'sign-digits/none.jpg': write_photo(tmp_path, 'sign-digits/none.jpg', [], None),
        'hagrid-subset/2.jpg': write_photo(tmp_path, 'hagrid-subset/2.jpg', [peer_hand(30)], None),
    }
    (tmp_path / 'mediapipe_peer.json').write_text(json.dumps({'images': images}))
    return tmp_path


def test_validation_recordings_and_empty_photos_are_left_out(root: Path) -> None:
    assert [Path(name).name for name in PeerPhotos(root).names] == ['3_a.jpg', '1.jpg']


def test_the_recordings_kept_apart_are_the_test_split(root: Path) -> None:
    photos = open_dataset('peer_photos', root, 'test')
    assert [photos[i].name for i in range(len(photos))] == PeerPhotos(root, 'test').names
    assert len(photos) == 1
    assert PeerPhotos(root, 'peer').names == ['hagrid-subset/2.jpg']


def test_drawn_boxes_label_every_hand_and_take_the_landmarks_they_hold(root: Path) -> None:
    sample = PeerPhotos(root)[0]
    sample.check()
    assert sample.all_hands_labelled and len(sample.hands) == 2
    assert sample.hands.boxes_xyxy_px[0].tolist() == [10, 10, 30, 30]
    assert sample.hands.joints_px[0, 0].tolist() == [9.5, 9.5]
    assert sample.hands.has_joint_px.all(1).tolist() == [True, False]
    assert sample.hands.is_left[0] and sample.hands.has_side[0]
    assert not sample.hands.has_visibility.any() and not sample.hands.has_vertices_m.any()


def test_without_boxes_a_photo_gives_no_negatives(root: Path) -> None:
    sample = PeerPhotos(root)[1]
    sample.check()
    assert not sample.all_hands_labelled
    assert not sample.hands.has_side[0]  # the peer is not sure enough of it
    box, joints = sample.hands.boxes_xyxy_px[0], sample.hands.joints_px[0]
    assert (joints >= box[:2]).all() and (joints <= box[2:]).all()


def test_a_wrong_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'mediapipe_peer\.json is missing'):
        PeerPhotos(tmp_path)


def test_real_photographs(shared_data: Path) -> None:
    photos = PeerPhotos(shared_data)
    assert len(photos) > 500
    for index in range(0, len(photos), 50):
        photos[index].check()


def write_set(root: Path) -> Path:
    """A set of photographs with boxes of its own and two without hands."""
    apart = VALIDATION_SETS[-1]
    world = np.arange(63.0).reshape(21, 3) / 1000
    sure = peer_hand(10) | {'world_landmarks': world.tolist()}
    images = {
        'gestures/both.jpg': write_photo(root, 'gestures/both.jpg', [sure], None),
        'gestures/two.jpg': write_photo(root, 'gestures/two.jpg', [peer_hand(10)], None),
        'gestures/box.jpg': write_photo(root, 'gestures/box.jpg', [], None),
        'gestures/padded.jpg': write_photo(root, 'gestures/padded.jpg', [sure], None)
        | {'way': 'pad40_0'},
        'rooms/1.jpg': write_photo(root, 'rooms/1.jpg', [], None),
        f'{apart}/1.jpg': write_photo(root, f'{apart}/1.jpg', [], None),
    }
    (root / 'mediapipe_peer.json').write_text(json.dumps({'images': images}))
    (root / 'negatives.txt').write_text(f'rooms/1.jpg\n{apart}/1.jpg\n')
    box = {'name': 'fist', 'box': [0.1, 0.2, 0.5, 0.6]}
    labels = {'both.jpg': [box], 'two.jpg': [box, box], 'box.jpg': [box]}
    (root / 'gestures' / 'labels.json').write_text(
        json.dumps({'kind': 'hands', 'images': {n: {'boxes': b} for n, b in labels.items()}})
    )
    (root / 'rooms' / 'labels.json').write_text(
        json.dumps({'kind': 'negative', 'images': {'1.jpg': {'boxes': [box]}}})
    )
    return root


def test_photographs_without_a_hand_are_negatives_by_set(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    train, test = Negatives(root), open_dataset('negatives', root, 'test')
    assert (train.names, test.names) == (['rooms/1.jpg'], [f'{VALIDATION_SETS[-1]}/1.jpg'])
    sample = train[0]
    sample.check()
    assert len(sample.hands) == 0 and sample.all_hands_labelled
    assert not set(train.names + test.names) & set(PeerPhotos(root).names)


def test_boxes_of_a_set_say_whether_all_hands_are_labelled(tmp_path: Path) -> None:
    photos = PeerPhotos(write_set(tmp_path))
    samples = {Path(name).stem: photos[i] for i, name in enumerate(photos.names)}
    complete = {name: sample.all_hands_labelled for name, sample in samples.items()}
    assert complete == {'both': True, 'two': False, 'box': True, 'padded': False}
    box = samples['box'].hands
    assert np.allclose(box.boxes_xyxy_px[0], [8, 12, 40, 36]) and not box.has_joint_px.any()


def test_a_sure_peer_tells_the_third_dimension(tmp_path: Path) -> None:
    photos = PeerPhotos(write_set(tmp_path))
    samples = {Path(name).stem: photos[i] for i, name in enumerate(photos.names)}
    hands = samples['both'].hands
    assert hands.has_joints_m[0] and hands.has_side[0]
    assert np.allclose(hands.joints_m[0, 9], 0) and np.allclose(hands.joints_m[0, 10], 0.003)
    padded = samples['padded'].hands  # found only after padding: joints, but nothing more
    assert padded.has_joint_px.all() and not padded.has_joints_m[0] and not padded.has_side[0]


def test_a_folder_without_negatives_is_said(root: Path) -> None:
    with pytest.raises(UserError, match=r'negatives\.txt names no photograph'):
        Negatives(root)
