"""Far hands are looked for in tiles, and count where closer views confirm them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from blob_finder import blobs

from handos_training.data.datasets.peer_photos import PeerPhotos
from tools import label_photos
from tools.label_photos import Hand, Image, hands_of, tiles


@pytest.fixture
def photograph() -> Image:
    image = np.zeros((480, 640, 3), np.uint8)
    image[300:420, 100:230] = 255
    image[60:85, 500:524] = 255  # far away
    return image


def test_tiles_cover_the_photograph_and_overlap() -> None:
    covered = np.zeros((480, 640), int)
    for x0, y0, x1, y1 in tiles(640, 480):
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1 and covered.max() == 4


def test_small_hands_are_found_once_and_where_they_are(photograph: Image) -> None:
    find = blobs(smallest_px=40)
    assert len(find(photograph)) == 1
    hands = hands_of(photograph, find)
    corners = sorted(np.array(hand['landmarks_px'])[:, :2].min(0).tolist() for hand in hands)
    assert len(hands) == 2
    np.testing.assert_allclose(corners, [[100, 300], [500, 60]], atol=2)


def test_what_closer_views_do_not_show_is_no_hand(photograph: Image) -> None:
    find, sides = blobs(smallest_px=40), iter(['Left', 'Right'] * 50)

    def unsure(image: Image) -> list[Hand]:
        return [{**hand, 'handedness_unmirrored': next(sides)} for hand in find(image)]

    assert len(hands_of(photograph, unsure)) < 2


def test_the_reader_takes_what_is_written(
    photograph: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'set').mkdir()
    cv2.imwrite(str(tmp_path / 'set' / 'a.png'), photograph)
    cv2.imwrite(str(tmp_path / 'set' / 'empty.png'), np.zeros_like(photograph))
    monkeypatch.setattr(label_photos, 'mediapipe_finder', lambda: blobs(smallest_px=40))
    monkeypatch.setattr('sys.argv', ['label_photos.py', str(tmp_path)])
    label_photos.main()
    assert list(json.loads((tmp_path / 'mediapipe_peer.json').read_text())['images']) == [
        'set/a.png'
    ]
    photos = PeerPhotos(tmp_path)
    assert len(photos) == 1
    assert len(photos[0].hands) == 2
