"""Datasets of a few images in their true layouts, and the files that a user brings with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hand_samples import posed_hand, write_jpeg

from handos_model.hand.model import HandModel

FREIHAND_CAMERA = [[480.0, 0, 112.0], [0, 480.0, 112.0], [0, 0, 1]]


def write_mano(folder: Path) -> Path:
    """MANO_RIGHT.pkl as its authors wrote it, of a hand that is slimmer than the embedded one."""
    from hand.mano_files import mano_content, written

    embedded = HandModel.embedded()
    slim = replace(embedded, v_template=embedded.v_template * [1.0, 0.95, 1.0])
    path = folder / 'MANO_RIGHT.pkl'
    path.write_bytes(written(mano_content(slim)))
    return path


def write_freihand(root: Path, model: HandModel, unique: int = 2) -> Path:
    """`unique` labels of either split; the training images stand four times."""
    root.mkdir(parents=True)
    hands = [posed_hand(seed, model=model) for seed in range(unique)]
    values = {
        'K': [FREIHAND_CAMERA] * unique,
        'xyz': [hand.mpii.tolist() for hand in hands],
        'verts': [hand.vertices_m.tolist() for hand in hands],
        'scale': [0.03] * unique,
        'mano': [[[0.0] * 61]] * unique,
    }
    for split, versions in (('training', 4), ('evaluation', 1)):
        for name, value in values.items():
            (root / f'{split}_{name}.json').write_text(json.dumps(value))
        for i in range(versions * unique):
            write_jpeg(root / split / 'rgb' / f'{i:08d}.jpg', (224, 224), i)
    return root
