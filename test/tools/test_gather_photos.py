"""Photographs out of clones: what a set takes, once each, with the peer's hands or surely none."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from blob_finder import blobs

from tools.gather_photos import SETS, chosen, found, gather
from tools.label_photos import Hand, Image


def white_blobs(image: Image) -> list[Hand]:
    """Takes white blobs that do not reach the edge for hands."""
    limits = np.array(image.shape[1::-1])
    return [
        hand
        for hand in blobs(smallest_px=20)(image)
        if (points := np.array(hand['landmarks_px'])[:, :2]).min() > 0 and (points < limits).all()
    ]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Three photographs with a hand, two of them copies of one; one without; a broken one."""
    pictures = tmp_path / 'clones' / 'someone+hands'
    (pictures / 'train').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, x in (('a.rf.1', 60), ('a.rf.2', 62), ('b.rf.3', 300), ('c.rf.4', None)):
        image = cv2.resize(rng.integers(0, 90, (9, 12, 3), np.uint8), (640, 480))
        if x is not None:
            image[200:300, x : x + 90] = 255
        cv2.imwrite(str(pictures / 'train' / f'{name}.jpg'), image)
    (pictures / 'train' / 'broken.rf.5.jpg').write_bytes(b'no picture')
    (pictures / 'notes.txt').write_text('not a picture')
    git = ['git', '-C', str(pictures), '-c', 'user.name=t', '-c', 'user.email=t@t']
    for command in (['init', '-q'], ['add', '.'], ['commit', '-q', '-m', 'photographs']):
        subprocess.run(git + command, check=True)
    return tmp_path / 'clones'


def a_set(**changes: Any) -> dict[str, Any]:
    return {
        'repository': 'someone/hands', 'licence': 'MIT', 'take': '^train/', 'limit': 9, **changes
    }  # fmt: skip


def test_a_set_with_hands(clone: Path, tmp_path: Path) -> None:
    told, records = gather(a_set(), clone, tmp_path / 'out', white_blobs)
    assert told == 'someone-hands: 2 of 9'
    for name, record in records.items():
        image = cv2.imread(str(tmp_path / 'out' / name))
        assert image is not None
        assert image.shape[:2] == (record['height'], record['width']) == (288, 384)
        (hand,) = white_blobs(np.asarray(image, np.uint8))
        np.testing.assert_allclose(
            record['hands'][0]['landmarks_px'], hand['landmarks_px'], atol=1.5
        )
    source = (tmp_path / 'out' / 'someone-hands' / '.source').read_text()
    assert re.fullmatch(r'someone/hands @[0-9a-f]{40}\nMIT\n', source)


def test_a_set_without_hands_takes_only_what_shows_none(clone: Path, tmp_path: Path) -> None:
    _, records = gather(a_set(no_hands=True, name='empty'), clone, tmp_path / 'out', white_blobs)
    assert [Path(name).name for name in records] == ['train__c.rf.4.jpg']
    assert next(iter(records.values()))['hands'] == []


def test_a_hand_at_the_edge_is_found_in_the_padded_photograph() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[50:120, :40] = 255
    hands, way = found(image, white_blobs)
    assert way == 'pad40_reflect'
    points = np.array(hands[0]['landmarks_px'])[:, :2]
    np.testing.assert_allclose([points.min(0), points.max(0)], [[-40, 50], [40, 120]], atol=2)


def test_a_missing_clone_is_told(tmp_path: Path) -> None:
    told, records = gather(a_set(), tmp_path, tmp_path / 'out', white_blobs)
    assert told.startswith('someone-hands: no clone') and records == {}


def test_the_table_of_sets_can_be_used() -> None:
    sets = json.loads(SETS.read_text())['sets']
    names = [one.get('name', one['repository']) for one in sets]
    assert len(set(names)) == len(names)
    for one in sets:
        assert one['licence'] in ('MIT', 'Apache-2.0', 'CC BY 4.0', 'CC0 1.0', 'Public Domain')
        pictures = [(f'x/{i}.jpg', str(i)) for i in range(3)]
        assert len(chosen(pictures, {**one, 'take': '^x/', 'skip': '0', 'limit': 1})) == 2
        assert chosen(pictures, {**one, 'take': '^y/', 'limit': 1}) == []
        re.compile(one['take']), re.compile(one.get('skip', ''))
