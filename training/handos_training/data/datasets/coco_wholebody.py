"""Hands of COCO-WholeBody v1.0 (Jin et al., ECCV 2020): people in everyday photographs.

    ROOT/annotations/coco_wholebody_{train,val}_v1.0.json
    ROOT/{train,val}2017/%012d.jpg

Each person has {left,right}hand_{valid,box,kpts}: box xywh in COCO's corner-based pixels, 21 x
(x, y, v) in MPII order. v = 0 is unlabelled; any positive v (most are fractions) is a reliable
joint, and says nothing of visibility. Hands that are small or blurred
are not `valid` and have no label, so a photograph with people never counts as completely labelled.
With `negatives`, photographs without any person are samples without hands.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from handos_model.hand.model import HandModel
from handos_training.data.datasets.records import (
    HandRecord,
    array,
    make_sample,
    read_image,
    read_json,
)
from handos_training.data.sample import Sample


class COCOWholeBody:
    """Photographs with at least one labelled hand, by image id."""

    splits = ('train', 'val')
    has_camera = False

    def __init__(
        self,
        root: Path,
        split: str = 'train',
        mano: HandModel | None = None,
        negatives: bool = False,
    ) -> None:
        self.root = root
        self.split = split
        content = read_json(root / 'annotations' / f'coco_wholebody_{split}_v1.0.json')
        people: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for person in content['annotations']:
            people[person['image_id']].append(person)
        self.images: list[tuple[str, list[dict[str, Any]], bool]] = []
        for image in sorted(content['images'], key=lambda item: int(item['id'])):
            hands = [hand for person in people[image['id']] for hand in _hands(person)]
            empty = not people[image['id']]
            if hands or (negatives and empty):
                self.images.append((image['file_name'], hands, empty))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        file_name, hands, empty = self.images[index]
        name = f'coco_wholebody/{self.split}/{Path(file_name).stem}'
        image = read_image(self.root / f'{self.split}2017' / file_name)
        records = [coco_record(h['kpts'], h['box'], h['is_left'], name) for h in hands]
        return make_sample(image, records, name, all_hands_labelled=empty)

    def sequence(self, index: int) -> str | None:
        """Photographs stand alone."""
        return None


def coco_record(keypoints: Any, box_xywh: Any, is_left: bool | None, name: str) -> HandRecord:
    """A hand of a COCO-style file: 63 numbers (x, y, v) and a box whose (0, 0) is the corner of
    the image, where ours is the centre of the first pixel."""
    points = array(np.reshape(keypoints, (-1, 3)), (21, 3), f'{name}: keypoints')
    x, y, width, height = array(box_xywh, (4,), f'{name}: box')
    box = np.array([x, y, x + width, y + height]) - 0.5
    return HandRecord(points[:, :2], points[:, 2] > 0, is_left=is_left, box_xyxy_px=box)


def _hands(person: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            'is_left': side == 'left',
            'box': np.array(person[f'{side}hand_box'], np.float32),
            'kpts': np.array(person[f'{side}hand_kpts'], np.float32),
        }
        for side in ('left', 'right')
        if person[f'{side}hand_valid']
    ]
