"""From a run's config to its training batches and its validation set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.config import TrainConfig
from handos_training.data.augment import AugmentConfig
from handos_training.data.datasets.catalogue import open_dataset
from handos_training.data.feed import GeneratedBatches, SizeHW, StoredBatches, fixed_batches
from handos_training.data.mix import LoadedBatch, SampleDataset, Source
from handos_training.data.mosaic import MosaicConfig
from handos_training.data.sample import Batch, Sample
from handos_training.synth.cache import CacheConfig, CachedHands, generate
from handos_training.synth.config import SynthConfig
from handos_training.synth.dataset import SynthHands
from handos_training.teacher import taught

ENDLESS = 1_000_000_000  # steps of a run that the clock ends
VALIDATION_SEED = 900_000_000  # far from every training seed
TIPS = [4, 8, 12, 16, 20]  # thumb, index, middle, ring, little


def stored_sources(config: TrainConfig) -> list[Source]:
    """The caches and real datasets of a run; none: images are generated on the spot."""
    data = config.data
    mano = None if config.template is None else HandModel.from_mano(config.template)
    real = [real_source(text, mano) for text in data.real]
    if not data.cache and data.teacher is None and all(weight is None for _, weight in real):
        return [replace(source, weight=float(len(source.dataset))) for source, _ in real]
    sources = [replace(source, weight=weight or 1.0) for source, weight in real]
    if data.cache:
        cached: SampleDataset = CachedHands(data.cache)
        if mano is not None:
            cached = WithoutMeshes(cached)
        sources.insert(0, Source('cache', cached, data.synthetic_weight))
    if data.teacher is not None:
        folder = config.out / 'teacher'
        lessons = taught(
            data.teacher, data.unlabelled, folder, data.teacher_score, config.template
        )
        sources.append(Source('teacher', lessons, data.teacher_weight))
    return sources


def scheduled(config: TrainConfig, sources: Sequence[Source], world: int) -> TrainConfig:
    """The config with `batch_size` and `num_steps` as `global_batch`, `epochs`, `minutes` say."""
    if config.global_batch is not None:
        parts = world * config.accumulate
        if config.global_batch % parts:
            raise UserError(
                f'global_batch={config.global_batch} cannot be shared by {world} processes that '
                f'accumulate {config.accumulate}: choose numbers whose product divides it'
            )
        config = replace(config, batch_size=config.global_batch // parts)
    if config.epochs is not None:
        images = sum(len(source.dataset) for source in sources)
        if not images:
            raise UserError('epochs counts stored images, and there are none: give num_steps')
        steps = round(config.epochs * images / (config.batch_size * config.accumulate * world))
        config = replace(config, num_steps=max(1, steps))
    if config.minutes is not None:
        config = replace(config, num_steps=ENDLESS)
    return config


def training_batches(
    config: TrainConfig,
    sources: Sequence[Source],
    size_for: Callable[[SizeHW], SizeHW],
    rank: int,
    world: int,
    device: torch.device,
) -> Dataset[LoadedBatch]:
    """Batches by step: from `sources`, or generated on the spot where there are none."""
    data = config.data
    if sources:
        augment = None
        if data.augment:
            augment = AugmentConfig(
                flip=data.flip,
                focus=data.focus,
                focus_side=data.focus_side,
                any_turn=data.any_turn,
            )
        sizes = size_for if config.long_edge else config.image_sizes_hw
        mosaic = MosaicConfig(share=data.mosaic) if data.mosaic else None
        return StoredBatches(
            sources, config.batch_size, sizes, config.seed, rank, world, augment, mosaic
        )
    if config.template is not None:
        raise UserError(
            'generated hands are of the embedded hand, whose vertices are not those of MANO: give '
            'data.real beside --template, or leave --template out'
        )
    on_device = device if data.num_workers == 0 else torch.device('cpu')
    make = HandGenerator(config.batch_size, on_device, config.seed)
    return GeneratedBatches(make, config.image_sizes_hw, config.seed, rank, world)


def validation_batches(config: TrainConfig, size_for: Callable[[SizeHW], SizeHW]) -> list[Batch]:
    """A fixed set: of real datasets, of `validation_cache`, or generated into the run's folder."""
    data = config.data
    count, size_hw = data.validation_samples, config.image_sizes_hw[-1]
    sizes = size_for if config.long_edge else size_hw
    if data.validation:
        mano = None if config.template is None else HandModel.from_mano(config.template)
        sets = [validation_set(text, mano) for text in data.validation]
        share = -(-count // len(sets))
        return [
            batch for one in sets for batch in fixed_batches(one, share, config.batch_size, sizes)
        ]
    if config.template is not None:
        raise UserError(
            'generated hands are of the embedded hand and say nothing of meshes of MANO: name '
            'what to validate on (--data.validation freihand:ROOT:evaluation)'
        )
    folder = data.validation_cache
    if folder is None:
        folder = config.out / 'validation'
        generate(
            CacheConfig(
                folder, count, *size_hw, shard_size=count, batch_size=min(4, count),
                seed=VALIDATION_SEED,
            )
        )  # fmt: skip
    return fixed_batches(CachedHands([folder]), count, config.batch_size, sizes)


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


def real_source(text: str, mano: HandModel | None) -> tuple[Source, float | None]:
    """Parse 'name:root[:weight]' and open the dataset's training split.

    Their meshes are MANO's: labels only where `mano` is the network's template.
    """
    name, root, weight = _parts(text, 'data.real', 'weight')
    dataset: SampleDataset = open_dataset(name, Path(root), 'train', mano)
    if mano is not None:
        dataset = OwnTips(dataset, mano)
    return Source(name, dataset), None if weight is None else float(weight)


def validation_set(text: str, mano: HandModel | None) -> SampleDataset:
    """Parse 'name:root[:split]' and open that split, or the one to evaluate on."""
    name, root, split = _parts(text, 'data.validation', 'split')
    return open_dataset(name, Path(root), split or 'test', mano)


class WithoutMeshes:
    """Samples of another template: all labels but those of the vertices."""

    def __init__(self, dataset: SampleDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        hands = sample.hands
        return sample.replace(
            hands=replace(hands, has_vertices_m=torch.zeros_like(hands.has_vertices_m))
        )


class OwnTips:
    """Samples whose fingertips are the network's vertices, where the mesh is labelled.

    Datasets take other vertices as tips (`joint_orders.py`), some millimetres away; the network
    has one set, and is scored with the dataset's own in evaluation.
    """

    def __init__(self, dataset: SampleDataset, mano: HandModel) -> None:
        self.dataset = dataset
        self.tips = torch.tensor(mano.tip_vertices)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        hands = sample.hands
        rows = torch.nonzero(hands.has_vertices_m & hands.has_joints_m & hands.has_translation)
        joints_m, joints_px = hands.joints_m.clone(), hands.joints_px.clone()
        for n in rows.flatten().tolist():
            joints_m[n, TIPS] = hands.vertices_m[n, self.tips]
            image = (joints_m[n, TIPS] + hands.translation_m[n]) @ sample.camera_matrix_px.T
            joints_px[n, TIPS] = image[:, :2] / image[:, 2:]
        return sample.replace(hands=replace(hands, joints_m=joints_m, joints_px=joints_px))


def _parts(text: str, option: str, third: str) -> tuple[str, str, str | None]:
    parts = text.split(':')
    if len(parts) not in (2, 3):
        raise UserError(f'{option}: {text!r} is not name:root or name:root:{third}')
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None
