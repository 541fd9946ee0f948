"""The mixture: exact shares, a stream that its position decides, corrupt files counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hand_samples import labelled_sample, truncate, write_jpeg
from torch.utils.data import DataLoader

from handos_model.errors import UserError
from handos_training.data.augment import Augment
from handos_training.data.datasets.records import make_sample, read_image
from handos_training.data.mix import (
    BLOCK,
    CorruptSampleCounter,
    Mixture,
    Source,
    collate_loaded,
)
from handos_training.data.sample import Sample


class Fake:
    """A dataset whose samples say their index, some of them damaged in the usual ways."""

    def __init__(self, length: int, bad: dict[int, str] | None = None) -> None:
        self.length = length
        self.bad = bad or {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        damage = self.bad.get(index)
        if damage == 'missing':
            raise FileNotFoundError(f'{index}.jpg')
        sample = labelled_sample(0, (48, 64)).replace(name=f'fake/{index}')
        if damage == 'nan':
            sample.hands.joints_m[0, 0, 0] = torch.nan
        if damage == 'shape':
            sample.hands.joints_px = sample.hands.joints_px[:, :20]
        return sample


def mixture(seed: int = 1) -> Mixture:
    return Mixture(
        [Source('a', Fake(30), 3), Source('b', Fake(7), 1), Source('c', Fake(5), 0.0001)], seed
    )


def test_shares_are_exact_in_every_block() -> None:
    mix = mixture()
    for block in (0, 5):
        drawn = [mix.draw(p).source for p in range(block * BLOCK, (block + 1) * BLOCK)]
        assert np.bincount(drawn).tolist() == [749, 250, 1]


def test_each_pass_shows_every_sample_once() -> None:
    mix = mixture()
    seen = [d.item for d in map(mix.draw, range(2000)) if d.source == 1]
    for start in range(0, 490, 7):
        assert sorted(seen[start : start + 7]) == list(range(7))
    assert seen[:7] != seen[7:14]


def test_a_position_means_the_same_wherever_one_starts() -> None:
    forward = [mixture().draw(p) for p in (0, 1, 999, 1000, 123_456)]
    mix = mixture()
    assert [mix.draw(p) for p in (123_456, 1000, 999, 1, 0)] == forward[::-1]
    assert [mixture(2).draw(p) for p in range(20)] != [mix.draw(p) for p in range(20)]


def test_resumed_batches_are_the_same() -> None:
    augment = Augment((32, 64))

    def batches(start: int, count: int, workers: int = 0) -> list[torch.Tensor]:
        mix = Mixture([Source('a', Fake(30), 3), Source('b', Fake(7))], 4, augment)
        loader = DataLoader(
            mix,
            4,
            sampler=range(start, start + count),
            num_workers=workers,
            collate_fn=collate_loaded,
        )
        return [item.batch.images for item in loader]

    whole = batches(0, 16)
    resumed = batches(8, 8, workers=1)
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], resumed, strict=True))


@pytest.mark.fault('training', 'samples that cannot be read', 'replaced, counted, named')
def test_bad_samples_are_replaced_and_named() -> None:
    bad = {1: 'missing', 2: 'nan', 3: 'shape'}
    mix = Mixture([Source('fake', Fake(6, bad))], 0)
    items = [mix[p] for p in range(6)]
    failures = [failure for item in items for failure in item.failures]
    assert {f.split(':')[0] for f in failures} == {'fake[1]', 'fake[2]', 'fake[3]'}
    assert any('1.jpg' in f for f in failures)
    assert any('joints_m' in f for f in failures) and any('joints_px' in f for f in failures)
    good = collate_loaded(items)
    assert len(good.batch.counts) == 6 and good.failures == tuple(failures)


class Photos:
    """Files on disk, one of them cut short."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / f'{i}.jpg' for i in range(4)]
        for i, path in enumerate(self.paths):
            write_jpeg(path, (48, 64), i)
        truncate(self.paths[2])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return make_sample(read_image(self.paths[index]), [], self.paths[index].name)


@pytest.mark.fault('training', 'a truncated file, in a worker', 'replaced, counted, named')
def test_a_truncated_file_is_found_in_worker_processes(tmp_path: Path) -> None:
    mix = Mixture([Source('photos', Photos(tmp_path))], 0)
    loader = DataLoader(mix, 4, sampler=range(8), num_workers=1, collate_fn=collate_loaded)
    counter = CorruptSampleCounter(patience=1000)
    with pytest.raises(UserError, match=r'photos\[2\]: ValueError: .*2\.jpg: truncated'):
        for loaded in loader:
            counter.add(len(loaded.batch.names), loaded.failures)
            assert '2.jpg' not in loaded.batch.names


@pytest.mark.fault('training', 'nothing can be read', 'stops at once')
def test_nothing_readable_stops_at_once() -> None:
    mix = Mixture([Source('fake', Fake(40, dict.fromkeys(range(40), 'missing')))], 0)
    with pytest.raises(UserError, match='in a row'):
        mix[0]


@pytest.mark.fault('training', 'one bad sample in a thousand', 'stops and names them')
def test_counter_stops_above_a_thousandth_and_names_them() -> None:
    counter = CorruptSampleCounter()
    counter.add(100, ['fake[3]: OSError: 3.jpg'])  # one early on is no verdict
    counter.add(9_000, [f'fake[{i}]: bad' for i in range(9)])
    with pytest.raises(UserError, match=r'fake\[3\]: OSError: 3.jpg'):
        counter.add(10, ['fake[11]: bad'])
    late = CorruptSampleCounter()
    late.add(1_000_000, ['x'] * 1000)
    with pytest.raises(UserError, match='1002 of'):
        late.add(1, ['x', 'x'])


@pytest.mark.parametrize(
    ('sources', 'message'),
    [
        ([], 'needs 1 to'),
        ([Source('a', Fake(0))], 'no samples'),
        ([Source('a', Fake(3), 0.0)], 'weight'),
    ],
)
def test_wrong_mixtures(sources: list[Source], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mixture(sources, 0)
