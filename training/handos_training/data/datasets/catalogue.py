"""The real datasets by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.data.mix import SampleDataset

# name -> (module, class, split to train on, split to evaluate on)
DATASETS: dict[str, tuple[str, str, str, str]] = {
    'freihand': ('freihand', 'FreiHAND', 'training', 'evaluation'),
    'ho3d': ('ho3d', 'HO3D', 'train', 'evaluation'),
    'h2o3d': ('h2o3d', 'H2O3D', 'train', 'train'),
    'comphand': ('comphand', 'CompHand', 'train', 'train'),
    'dexycb': ('dexycb', 'DexYCB', 's0_train', 's0_test'),
    'hint': ('hint', 'HInt', 'train', 'test'),
    'coco_wholebody': ('coco_wholebody', 'COCOWholeBody', 'train', 'val'),
    'onehand10k': ('onehand10k', 'OneHand10K', 'train', 'test'),
    'peer_photos': ('peer_photos', 'PeerPhotos', 'train', 'test'),
    'negatives': ('peer_photos', 'Negatives', 'train', 'test'),
}


class RealDataset(SampleDataset, Protocol):
    """A reader: samples by index, and what is known of all of them."""

    splits: tuple[str, ...]
    has_camera: bool  # False: samples carry the virtual camera

    def sequence(self, index: int, /) -> str | None:
        """The recording that a sample is a frame of; None where images stand alone."""


def open_dataset(
    name: str, root: Path, split: str = 'train', mano: HandModel | None = None
) -> RealDataset:
    """A reader by name. `mano`: the user's MANO where it is the network's template, for meshes.

    `split` is one of the dataset's own, or 'train' or 'test' for the usual ones. Raises UserError
    where the name, the split or the tree on disk is wrong.
    """
    reader = reader_class(name)
    split = own_split(name, split)
    if split not in reader.splits and '+' not in split:
        raise UserError(f'{name} has no split {split!r}: choose one of {", ".join(reader.splits)}')
    if not root.is_dir():
        raise UserError(f'{root} is no folder: give the root of {name} (docs/datasets/{name}.md)')
    dataset: RealDataset = reader(root, split, mano)
    return dataset


def own_split(name: str, split: str) -> str:
    """The dataset's own name of 'train' or 'test'; other splits stay as they are."""
    if split in reader_class(name).splits:
        return split
    return dict(zip(('train', 'test'), DATASETS[name][2:], strict=True)).get(split, split)


def reader_class(name: str) -> Any:
    """The class of a dataset's reader; UserError where there is none."""
    if name not in DATASETS:
        raise UserError(f'no dataset {name!r}: choose one of {", ".join(DATASETS)}')
    module, class_name = DATASETS[name][:2]
    return getattr(importlib.import_module(f'handos_training.data.datasets.{module}'), class_name)
