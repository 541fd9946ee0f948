"""The batches of a run: what is in the batch of a step depends on (seed, step, process) alone.

That makes a resumed run see the same data, whatever the number of worker processes, and W
processes with batches of B see what one process with batches of W B sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from handos_training.data.augment import Augment, AugmentConfig
from handos_training.data.mix import LoadedBatch, Mixture, SampleDataset, Source, collate_loaded
from handos_training.data.sample import Batch, Sample, collate
from handos_training.data.transform import letterbox

SizeHW = tuple[int, int]


class StoredBatches(Dataset[LoadedBatch]):
    """Batches from a mixture of stored datasets, at one of several image sizes."""

    def __init__(
        self,
        sources: Sequence[Source],
        batch_size: int,
        sizes_hw: Sequence[SizeHW],
        seed: int,
        rank: int = 0,
        world: int = 1,
        augment: AugmentConfig | None = None,
    ) -> None:
        self.mixtures = [Mixture(sources, seed, _Fit(size, augment)) for size in sizes_hw]
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world

    def __getitem__(self, step: int) -> LoadedBatch:
        mixture = self.mixtures[_rng(self.seed, step, 0).integers(len(self.mixtures))]
        first = (step * self.world + self.rank) * self.batch_size
        return collate_loaded([mixture[first + i] for i in range(self.batch_size)])


class GeneratedBatches(Dataset[LoadedBatch]):
    """Batches generated on the spot by `make(size_hw, number) -> Batch`."""

    def __init__(
        self,
        make: Callable[[SizeHW, int], Batch],
        sizes_hw: Sequence[SizeHW],
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.make, self.sizes_hw, self.seed = make, list(sizes_hw), seed
        self.rank, self.world = rank, world

    def __getitem__(self, step: int) -> LoadedBatch:
        size_hw = self.sizes_hw[_rng(self.seed, step, 0).integers(len(self.sizes_hw))]
        return LoadedBatch(self.make(size_hw, step * self.world + self.rank), ())


class _Fit:
    """Bring a sample to the network's input, with or without random changes."""

    def __init__(self, size_hw: SizeHW, augment: AugmentConfig | None) -> None:
        self.size_hw = size_hw
        self.augment = None if augment is None else Augment(size_hw, augment)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.augment is None:
            return letterbox(sample, self.size_hw)
        return self.augment(sample, rng)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of torch's generators in one step of one process."""
    return int(_rng(seed, step, 1 + rank).integers(2**31))


def batches(
    dataset: Dataset[LoadedBatch], first_step: int, num_steps: int, num_workers: int
) -> Iterator[LoadedBatch]:
    """The batches of steps `first_step` to `num_steps` - 1, prepared ahead by workers."""
    steps = range(first_step, num_steps)
    if num_workers == 0:
        yield from (dataset[step] for step in steps)
        return
    yield from DataLoader(
        dataset,
        sampler=steps,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=_one_thread,
        prefetch_factor=4,
    )


def fixed_batches(
    source: SampleDataset, count: int, batch_size: int, size_hw: SizeHW
) -> list[Batch]:
    """The first `count` samples of a source, unaugmented: a validation set."""
    samples = [letterbox(source[i], size_hw) for i in range(min(count, len(source)))]
    return [collate(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)]


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _rng(seed: int, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed, number, purpose))
