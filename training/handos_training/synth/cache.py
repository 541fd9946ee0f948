"""Generated hands on disk: rendered once, read many times with fresh augmentation.

A shard is one safetensors file of JPEG images (quality 95, no chroma subsampling) and their
labels. Shard i depends on (seed, i) alone and gets its name when it is complete, so generation can
be stopped at any time, continued, and shared among processes; training may read meanwhile.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from handos_model.errors import UserError
from handos_model.files import write_whole
from handos_training.data.sample import HandLabels, Sample

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
LABEL_FIELDS = tuple(f.name for f in fields(HandLabels))


def write_shard(path: Path, samples: list[Sample]) -> None:
    """Write samples into one file; it appears under its name only when it is complete."""
    images = [_encode(sample.image) for sample in samples]
    tensors = {
        'jpeg': torch.cat(images),
        'jpeg_end': torch.tensor([len(image) for image in images]).cumsum(0),
        'hand_end': torch.tensor([len(sample.hands) for sample in samples]).cumsum(0),
        'camera_matrix_px': torch.stack([sample.camera_matrix_px for sample in samples]),
        'all_hands_labelled': torch.tensor([sample.all_hands_labelled for sample in samples]),
    }
    for name in LABEL_FIELDS:
        tensors[f'hands.{name}'] = torch.cat([getattr(sample.hands, name) for sample in samples])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(tensors))


class CachedHands:
    """The samples of all shards of some folders, by index. Safe to pass to worker processes."""

    def __init__(self, folders: tuple[Path, ...] | list[Path]) -> None:
        self.paths = [path for folder in folders for path in sorted(folder.glob('*.safetensors'))]
        if not self.paths:
            named = ', '.join(map(str, folders))
            raise UserError(f'no shards in {named}: make them with `handos-train cache --out DIR`')
        self._end: list[int] = []
        total = 0
        for path in self.paths:
            with safe_open(path, 'pt') as shard:
                total += shard.get_slice('jpeg_end').get_shape()[0]
            self._end.append(total)
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._end[-1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_open': {}}

    def __getitem__(self, index: int) -> Sample:
        number = bisect_right(self._end, index)
        row = index - (self._end[number - 1] if number else 0)
        shard = self._open.get(number)
        if shard is None:
            shard = self._open[number] = _Shard(self.paths[number])
        sample: Sample = shard.sample(row)
        return sample


class _Shard:
    """An open shard; only the rows that are asked for are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        opened: Any = safe_open(path, 'pt')
        self.file = opened
        self.jpeg_end = self.file.get_tensor('jpeg_end').tolist()
        self.hand_end = self.file.get_tensor('hand_end').tolist()
        self.slices = {name: self.file.get_slice(f'hands.{name}') for name in LABEL_FIELDS}

    def sample(self, row: int) -> Sample:
        begin, end = _range(self.jpeg_end, row)
        image = _decode(self.file.get_slice('jpeg')[begin:end])
        first, last = _range(self.hand_end, row)
        hands = HandLabels(**{name: part[first:last] for name, part in self.slices.items()})
        return Sample(
            image,
            self.file.get_slice('camera_matrix_px')[row],
            hands,
            f'{self.path.name}[{row}]',
            bool(self.file.get_slice('all_hands_labelled')[row : row + 1]),
        )


@dataclass(frozen=True)
class CacheConfig:
    """`handos-train cache`: generate images once, for many runs."""

    out: Path
    num_images: int = 20_000
    height: int = 480
    width: int = 640
    shard_size: int = 256
    batch_size: int = 4
    seed: int = 0
    workers: int = 1
    device: str = 'cpu'
    backgrounds: Path | None = None  # a folder of photographs without hands, behind some


def generate(config: CacheConfig) -> None:
    """Write the shards that are still missing, with `workers` processes."""
    num_shards = -(-config.num_images // config.shard_size)
    if config.workers == 1:
        _generate_shards(0, config, num_shards)
        return
    spawn(  # type: ignore[no-untyped-call]
        _generate_shards, (config, num_shards), nprocs=config.workers
    )


def _generate_shards(worker: int, config: CacheConfig, num_shards: int) -> None:
    if config.workers > 1:
        torch.set_num_threads(1)
    for number in range(worker, num_shards, config.workers):
        path = config.out / f'shard-{number:05d}.safetensors'
        if path.exists():
            continue
        write_shard(path, list(_samples(config, number)))
        print(f'{path} ({number + 1} of {num_shards})', file=sys.stderr, flush=True)


def _samples(config: CacheConfig, number: int) -> Iterator[Sample]:
    from handos_training.synth.config import SynthConfig
    from handos_training.synth.dataset import SynthHands

    synth = SynthConfig(height=config.height, width=config.width, backgrounds=config.backgrounds)
    hands = SynthHands(synth, config.batch_size, config.device, config.seed)
    batches_a_shard = -(-config.shard_size // config.batch_size)
    wanted = config.shard_size
    for index in range(number * batches_a_shard, (number + 1) * batches_a_shard):
        batch = hands.batch(index).to('cpu')
        for i in range(min(wanted, len(batch.names))):
            yield batch.sample(i)
        wanted -= len(batch.names)


def _encode(image: Tensor) -> Tensor:
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1])
    done, data = cv2.imencode('.jpg', pixels, JPEG)
    if not done:
        raise ValueError(f'cannot encode an image of {tuple(image.shape)}')
    return torch.from_numpy(data.reshape(-1))


def _decode(data: Tensor) -> Tensor:
    pixels = cv2.imdecode(data.numpy(), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError('damaged JPEG in a shard')
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def _range(ends: list[int], row: int) -> tuple[int, int]:
    return (ends[row - 1] if row else 0), ends[row]
