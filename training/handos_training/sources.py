"""From a run's config to its training batches and its validation set."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import Dataset

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.config import TrainConfig
from handos_training.data.augment import AugmentConfig
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.feed import GeneratedBatches, SizeHW, StoredBatches, fixed_batches
from handos_training.data.mix import LoadedBatch, Source
from handos_training.data.sample import Batch
from handos_training.synth.cache import CacheConfig, CachedHands, generate
from handos_training.synth.config import SynthConfig
from handos_training.synth.dataset import SynthHands

VALIDATION_SEED = 900_000_000  # far from every training seed


def training_batches(
    config: TrainConfig, rank: int, world: int, device: torch.device
) -> Dataset[LoadedBatch]:
    """Batches by step: from caches and real datasets, or generated on the spot."""
    stored: list[Source] = []
    if config.data.cache:
        cached = CachedHands(config.data.cache)
        stored.append(Source('cache', cached, config.data.synthetic_weight))
    mano = None if config.template is None else HandModel.from_mano(config.template)
    stored += [real_source(text, mano) for text in config.data.real]
    if stored:
        augment = None
        if config.data.augment:
            augment = AugmentConfig(focus=config.data.focus, focus_side=config.data.focus_side)
        return StoredBatches(
            stored, config.batch_size, config.image_sizes_hw, config.seed, rank, world, augment
        )
    on_device = device if config.data.num_workers == 0 else torch.device('cpu')
    make = HandGenerator(config.batch_size, on_device, config.seed)
    return GeneratedBatches(make, config.image_sizes_hw, config.seed, rank, world)


def validation_batches(config: TrainConfig) -> list[Batch]:
    """A fixed set: of `validation_cache`, or generated once into the run's folder."""
    data = config.data
    size_hw = config.image_sizes_hw[-1]
    folder = data.validation_cache
    if folder is None:
        folder = config.out / 'validation'
        count = data.validation_samples
        generate(
            CacheConfig(
                folder, count, *size_hw, shard_size=count, batch_size=min(4, count),
                seed=VALIDATION_SEED,
            )
        )  # fmt: skip
    return fixed_batches(
        CachedHands([folder]), data.validation_samples, config.batch_size, size_hw
    )


class HandGenerator:
    """A batch of generated hands from a number; keeps one generator an image size."""

    def __init__(self, batch_size: int, device: torch.device, seed: int) -> None:
        self.batch_size, self.device, self.seed = batch_size, device, seed
        self.generators: dict[SizeHW, SynthHands] = {}

    def __call__(self, size_hw: SizeHW, number: int) -> Batch:
        hands = self.generators.get(size_hw)
        if hands is None:
            config = SynthConfig(height=size_hw[0], width=size_hw[1])
            hands = SynthHands(config, self.batch_size, self.device, self.seed)
            self.generators[size_hw] = hands
        return hands.batch(number)


def real_source(text: str, mano: HandModel | None) -> Source:
    """Parse 'name:root[:weight]' and open the dataset's training split.

    Their meshes are MANO's: labels only where `mano` is the network's template.
    """

    parts = text.split(':')
    if len(parts) not in (2, 3):
        raise UserError(f'data.real: {text!r} is not name:root or name:root:weight')
    weight = float(parts[2]) if len(parts) == 3 else 1.0
    return Source(parts[0], open_dataset(parts[0], Path(parts[1]), 'train', mano), weight)
