"""The batches of a run: what is in the batch of a step depends on (seed, step, process) alone.

That makes a resumed run see the same data, whatever the number of worker processes, and W
processes with batches of B see what one process with batches of W B sees.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from handos_training.data.augment import Augment, AugmentConfig
from handos_training.data.mix import LoadedBatch, Mixture, SampleDataset, Source, collate_loaded
from handos_training.data.mosaic import Mosaic, MosaicConfig
from handos_training.data.sample import Batch, Sample, collate
from handos_training.data.transform import letterbox

SizeHW = tuple[int, int]
Sizes = Sequence[SizeHW] | Callable[[SizeHW], SizeHW]


class StoredBatches(Dataset[LoadedBatch]):
    """Batches from a mixture of stored datasets.

    `sizes_hw` are sizes of which each step draws one, or say the size for a step's first image:
    a batch has one size, and images of another aspect are padded.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        batch_size: int,
        sizes_hw: Sizes,
        seed: int,
        rank: int = 0,
        world: int = 1,
        augment: AugmentConfig | None = None,
        mosaic: MosaicConfig | None = None,
    ) -> None:
        self.sources, self.sizes_hw = sources, sizes_hw
        self.augment, self.mosaic = augment, mosaic
        self.mixtures: dict[SizeHW | None, Mixture] = {}
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world

    def __getitem__(self, step: int) -> LoadedBatch:
        mixture = self._mixture(self._size(step))
        first = (step * self.world + self.rank) * self.batch_size
        return collate_loaded([mixture[first + i] for i in range(self.batch_size)])

    def _size(self, step: int) -> SizeHW:
        if not callable(self.sizes_hw):
            return self.sizes_hw[int(_rng(self.seed, step, 0).integers(len(self.sizes_hw)))]
        # Of the first image of all processes, so that they agree.
        image = self._mixture(None)[step * self.world * self.batch_size].sample.image
        return self.sizes_hw((int(image.shape[1]), int(image.shape[2])))

    def _mixture(self, size_hw: SizeHW | None) -> Mixture:
        if size_hw not in self.mixtures:
            fit = None if size_hw is None else _Fit(size_hw, self.augment)
            join = None
            if size_hw is not None and self.mosaic is not None:
                # A canvas of more pixels than the network's input, as augmentation may zoom in.
                height, width = (side * 4 // 3 for side in size_hw)
                join = Mosaic((height, width), self.mosaic)
            self.mixtures[size_hw] = Mixture(self.sources, self.seed, fit, join)
        return self.mixtures[size_hw]


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
        worker_init_fn=_start_worker,
        prefetch_factor=4,
    )


def fixed_batches(
    source: SampleDataset,
    count: int,
    batch_size: int,
    size_hw: SizeHW | Callable[[SizeHW], SizeHW],
) -> list[Batch]:
    """The first `count` samples of a source, unaugmented: a validation set."""
    count, fixed = min(count, len(source)), []
    for first in range(0, count, batch_size):
        samples = [source[i] for i in range(first, min(first + batch_size, count))]
        height, width = samples[0].image.shape[1:]
        size = size_hw((int(height), int(width))) if callable(size_hw) else size_hw
        fixed.append(collate([letterbox(sample, size) for sample in samples]))
    return fixed


def _start_worker(_: int) -> None:
    # A signal to the whole group (Ctrl-C, torchrun, a scheduler) asks the run to stop after this
    # step; a worker that it killed would break the step. Workers end when their run ends.
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _rng(seed: int, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed, number, purpose))
