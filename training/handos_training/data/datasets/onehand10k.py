"""OneHand10K (Wang et al., TCSVT 2019) with the annotation files of the MMPose project.

    ROOT/annotations/onehand10k_{train,test}.json
    ROOT/{Train,Test}/source/*.jpg

COCO style: `bbox` xywh and 21 x (x, y, v) in MPII order, unlabelled joints 0, 0, 0. There is no
label of the side, and none of visibility: v = 1 only says that a joint is labelled.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from handos_model.hand.model import HandModel
from handos_training.data.datasets.coco_wholebody import coco_record
from handos_training.data.datasets.records import make_sample, read_image, read_json
from handos_training.data.sample import Sample


class OneHand10K:
    """Labelled images, by image id."""

    splits = ('train', 'test')
    has_camera = False

    def __init__(self, root: Path, split: str = 'train', mano: HandModel | None = None) -> None:
        self.root = root
        content = read_json(root / 'annotations' / f'onehand10k_{split}.json')
        hands: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for hand in content['annotations']:
            hands[hand['image_id']].append(hand)
        images = sorted(content['images'], key=lambda item: int(item['id']))
        self.images = [(i['file_name'], hands[i['id']]) for i in images if hands[i['id']]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        file_name, hands = self.images[index]
        name = f'onehand10k/{file_name}'
        image = read_image(self.root / file_name)
        records = [coco_record(hand['keypoints'], hand['bbox'], None, name) for hand in hands]
        return make_sample(image, records, name)

    def sequence(self, index: int) -> str | None:
        """Images stand alone."""
        return None
