"""HInt (Pavlakos et al., CVPR 2024): hands in the wild, 2D joints with occlusion labels.

    ROOT/{TRAIN,VAL,TEST}_{newdays,epick,ego4d}_img/NAME_{l,r}.{jpg,json}   (and _seq of Ego4D)

A JSON is a list of one {bbox: [[x1,y1,x2,y2]], keypoints: 21 x 2, occlusion: 21, existence: 21},
MPII order. Occlusion 1 is hidden, existence 0 (missing in some releases) is outside the image, and
the last letter of the name is the side. Every file labels ONE hand of a frame that may show more,
so no sample of HInt says that all its hands are labelled. Splits are folder names without `_img`,
several joined by `+`; the splits train, val and test are all three sources.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.datasets.records import (
    HandRecord,
    array,
    make_sample,
    need,
    read_image,
    read_json,
)
from handos_training.data.sample import Sample

SOURCES = ('newdays', 'epick', 'ego4d')


class HInt:
    """Labelled hands of one split, one a sample, sorted by name."""

    splits = (
        *('train', 'val', 'test'),
        *(f'{part}_{source}' for part in ('TRAIN', 'VAL', 'TEST') for source in SOURCES),
        *('TEST_ego4d_seq', 'VAL_ego4d_seq'),
    )
    has_camera = False

    def __init__(self, root: Path, split: str = 'train', mano: HandModel | None = None) -> None:
        self.root = need(root)
        self.split = split
        names = [split]
        if split in ('train', 'val', 'test'):
            names = [f'{split.upper()}_{source}' for source in SOURCES]
        folders = [n if n.endswith('_seq') else f'{n}_img' for n in '+'.join(names).split('+')]
        self.labels: list[Path] = []
        for folder in folders:
            labels = sorted(need(root / folder).glob('*.json'))
            # The archive holds Ego4D labels without their images, which need a licence.
            kept = [path for path in labels if path.with_suffix('.jpg').exists()]
            if not kept and 'ego4d' not in folder:
                raise UserError(f'{root / folder} has no labelled images')
            self.labels += kept
        if not self.labels:
            raise UserError(
                f'{root}: no images of {split}; Ego4D frames have to be added with the '
                "dataset's own script"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        path = self.labels[index]
        name = f'hint/{path.parent.name}/{path.stem}'
        entry = _entry(path, name)
        exists = _flags(entry.get('existence', np.ones(21)), name)
        record = HandRecord(
            array(np.asarray(entry['keypoints'])[:, :2], (21, 2), f'{name}: keypoints'),
            exists,
            is_left=_is_left(path),
            box_xyxy_px=array(np.reshape(entry['bbox'], -1)[:4], (4,), f'{name}: bbox'),
            visible=exists & ~_flags(entry['occlusion'], name),
        )
        return make_sample(read_image(path.with_suffix('.jpg')), [record], name)

    def sequence(self, index: int) -> str | None:
        """Frames stand alone."""
        return None


def _entry(path: Path, name: str) -> dict[str, Any]:
    try:
        content = read_json(path)
    except UserError as error:
        raise ValueError(str(error)) from None
    if not isinstance(content, list) or len(content) != 1:
        raise ValueError(f'{name}: expected a list of one hand')
    entry: dict[str, Any] = content[0]
    return entry


def _flags(values: Any, name: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return array(np.reshape(values, -1), (21,), f'{name}: flags') > 0.5


def _is_left(path: Path) -> bool:
    side = path.stem.rsplit('_', 1)[-1]
    if side not in ('l', 'r'):
        raise ValueError(f'{path}: the name must end with _l or _r')
    return side == 'l'
