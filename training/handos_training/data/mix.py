"""Several datasets as one endless, deterministic stream that can start anywhere.

Position p of the stream is a pure function of (seed, p): which dataset, which of its samples, and
the seed of its augmentation and of its mosaic, which joins it with others. So resuming is starting
at the saved position, and N processes share a stream by taking every N-th position. Samples that
cannot be read are replaced, and counted.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from handos_model.errors import UserError
from handos_training.data.sample import Batch, Sample, collate

BLOCK = 1000  # positions in which every dataset has exactly its share
MAX_REPLACEMENTS = 16
# What reading a damaged file raises; anything else is a mistake in the program.
CORRUPT = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, EOFError),
    *(cv2.error, pickle.UnpicklingError, zipfile.BadZipFile),
)


class SampleDataset(Protocol):
    """What a reader is."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture; weights are relative to each other."""

    name: str
    dataset: SampleDataset
    weight: float = 1.0


class Joiner(Protocol):
    """Puts further samples, which it asks `another` for, beside one; or leaves it as it is."""

    def __call__(
        self,
        sample: Sample,
        another: Callable[[np.random.Generator], Sample],
        rng: np.random.Generator,
    ) -> Sample: ...


class Draw(NamedTuple):
    """What stands at one position of the stream."""

    source: int
    item: int
    augmentation_seed: tuple[int, int]


class Loaded(NamedTuple):
    """A sample and the descriptions of those that had to be passed over to get it."""

    sample: Sample
    failures: tuple[str, ...]


class LoadedBatch(NamedTuple):
    """A batch and what it took to read it."""

    batch: Batch
    failures: tuple[str, ...]


class Mixture(Dataset[Loaded]):
    """The stream; index it with positions from 0 on, it has no end."""

    def __init__(
        self,
        sources: Sequence[Source],
        seed: int,
        transform: Callable[[Sample, np.random.Generator], Sample] | None = None,
        join: Joiner | None = None,
    ) -> None:
        for source in sources:
            if not source.weight > 0:
                raise UserError(f'{source.name}: weight must be positive, got {source.weight}')
            if not len(source.dataset):
                raise UserError(f'{source.name} has no samples')
        if not 0 < len(sources) <= BLOCK:
            raise UserError(f'a mixture needs 1 to {BLOCK} datasets, got {len(sources)}')
        self.sources = list(sources)
        self.seed = seed
        self.transform = transform
        self.join = join
        self.quotas = _quotas([source.weight for source in sources])
        self._orders: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}
        self._block: tuple[int, npt.NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def draw(self, position: int) -> Draw:
        """What stands at `position`."""
        block, offset = divmod(position, BLOCK)
        if self._block[0] != block:
            order = np.repeat(np.arange(len(self.sources)), self.quotas)
            self._block = block, np.random.default_rng((self.seed, block)).permutation(order)
        sources = self._block[1]
        source = int(sources[offset])
        used = block * int(self.quotas[source]) + int((sources[:offset] == source).sum())
        epoch, place = divmod(used, len(self.sources[source].dataset))
        return Draw(source, int(self._order(source, epoch)[place]), (self.seed, position))

    def __getitem__(self, position: int) -> Loaded:
        draw = self.draw(position)
        source = self.sources[draw.source]
        failures: list[str] = []
        for attempt in range(MAX_REPLACEMENTS):
            index = (draw.item + attempt) % len(source.dataset)
            try:
                sample = source.dataset[index]
                sample.check()
                # Another attempt takes other random numbers, and so other images of a mosaic.
                rng = np.random.default_rng((*draw.augmentation_seed, attempt))
                if self.join is not None:
                    sample = self.join(sample, self._any, rng)
                if self.transform is not None:
                    sample = self.transform(sample, rng)
                sample.check()
                return Loaded(sample, tuple(failures))
            except CORRUPT as error:
                failures.append(f'{source.name}[{index}]: {type(error).__name__}: {error}')
        raise UserError(
            f'{source.name}: {MAX_REPLACEMENTS} samples in a row cannot be read, the last: '
            f'{failures[-1]}. Run `handos-train check-data` on the dataset.'
        )

    def _any(self, rng: np.random.Generator) -> Sample:
        """Some sample of the stream, a dataset as often as its share says."""
        source = self.sources[int(rng.choice(len(self.sources), p=self.quotas / BLOCK))]
        return source.dataset[int(rng.integers(len(source.dataset)))]

    def _order(self, source: int, epoch: int) -> npt.NDArray[np.int64]:
        """The permutation of a dataset in its `epoch`-th pass; the last one is kept."""
        if source not in self._orders or self._orders[source][0] != epoch:
            rng = np.random.default_rng((self.seed, 1 + source, epoch))
            self._orders[source] = epoch, rng.permutation(len(self.sources[source].dataset))
        return self._orders[source][1]


def collate_loaded(items: list[Loaded]) -> LoadedBatch:
    """For DataLoader: a batch, and the failures on the way to it."""
    failures = tuple(failure for item in items for failure in item.failures)
    return LoadedBatch(collate([item.sample for item in items]), failures)


class CorruptSampleCounter:
    """Counts what could not be read; raises UserError above `limit` of all samples.

    The share is of at least `patience` samples, so that one bad file early on is no verdict.
    """

    def __init__(self, limit: float = 0.001, patience: int = 10_000) -> None:
        self.limit = limit
        self.patience = patience
        self.seen = 0
        self.failed = 0
        self.failures: dict[str, int] = {}

    def add(self, seen: int, failures: Sequence[str] = ()) -> None:
        """Count `seen` good samples and the descriptions of the bad ones between them."""
        self.seen += seen + len(failures)
        self.failed += len(failures)
        for failure in failures:
            self.failures[failure] = self.failures.get(failure, 0) + 1
        if self.failed > self.limit * max(self.seen, self.patience):
            names = '\n  '.join(list(self.failures)[:20])
            more = len(self.failures) - 20
            raise UserError(
                f'{self.failed} of {self.seen} samples cannot be read, more than '
                f'{self.limit:.1%}; mend or remove these files and resume:\n  {names}'
                + (f'\n  and {more} more' if more > 0 else '')
            )


def _quotas(weights: Sequence[float]) -> npt.NDArray[np.int64]:
    """How many of BLOCK positions each dataset gets: its share, rounded, and at least one."""
    shares = np.asarray(weights, np.float64) / sum(weights) * BLOCK
    quotas = np.maximum(np.floor(shares), 1).astype(np.int64)
    while quotas.sum() != BLOCK:
        step = 1 if quotas.sum() < BLOCK else -1
        gain = np.where((quotas + step > 0), step * (shares - quotas), -np.inf)
        quotas[int(gain.argmax())] += step
    return quotas
