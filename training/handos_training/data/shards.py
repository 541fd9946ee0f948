"""Samples in webdataset shards: tar files that need no index and stream from anywhere.

A shard is a .tar; files with one stem, next to each other, are one sample:

    000012.jpg       the image, RGB JPEG (or .png, lossless)
    000012.npz       every field of HandLabels under its own name (N hands), and
                     `camera_matrix_px` float32 [3,3], `all_hands_labelled` bool []
    000012.txt       the sample's name

`handos-synth write` makes them; any reader of tar, npz and JPEG can use them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch
import webdataset
from torch.utils.data import IterableDataset, get_worker_info

from handos_model.errors import UserError
from handos_training.data.sample import Batch, HandLabels, Sample

JPEG_QUALITY = 95


class ShardWriter:
    """Writes samples to DIR/00000.tar, DIR/00001.tar, ..., `per_shard` to each."""

    def __init__(self, folder: Path, per_shard: int = 1000) -> None:
        if per_shard < 1:
            raise ValueError(f'per_shard must be positive, got {per_shard}')
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob('*.tar')):
            raise UserError(f'{folder} has shards already; give an empty folder')
        self.folder = folder
        self.per_shard = per_shard
        self.count = 0
        self._tar: Any = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar is not None:
            self._tar.close()

    def write(self, batch: Batch) -> None:
        """Append all samples of a batch."""
        images = batch.images.permute(0, 2, 3, 1).cpu().numpy()
        for i, image in enumerate(images):
            if self.count % self.per_shard == 0:
                self.__exit__()
                name = f'{self.count // self.per_shard:05d}.tar'
                self._tar = webdataset.TarWriter(str(self.folder / name))
            parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            _, jpeg = cv2.imencode('.jpg', image[..., ::-1], parameters)
            arrays = {f.name: getattr(batch.hands[i], f.name) for f in fields(HandLabels)}
            arrays['camera_matrix_px'] = batch.camera_matrices_px[i]
            arrays['all_hands_labelled'] = batch.all_hands_labelled[i]
            labels = io.BytesIO()
            np.savez_compressed(labels, **{k: v.cpu().numpy() for k, v in arrays.items()})
            self._tar.write(
                {
                    '__key__': f'{self.count:08d}',
                    'jpg': jpeg.tobytes(),
                    'npz': labels.getvalue(),
                    'txt': batch.names[i],
                }
            )
            self.count += 1


class ShardDataset(IterableDataset[Sample]):
    """Samples of shards, in their order; workers of a DataLoader share the shards out."""

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self.paths = [Path(path) for path in paths]
        missing = [str(path) for path in self.paths if not path.is_file()]
        if missing or not self.paths:
            raise UserError(f'no shards at {", ".join(missing) or "(none given)"}')

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for path in self.paths[number::step]:
            with path.open('rb') as file:
                yield from _samples(path, file)


def _samples(path: Path, file: IO[bytes]) -> Iterator[Sample]:
    for entry in webdataset.tariterators.group_by_keys(_members(path, file)):
        name = f'{path.name}/{entry["__key__"]}'
        try:
            yield _decode(entry, name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f'{name}: not a sample: {error}') from error


def _members(path: Path, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for member in webdataset.tariterators.tar_file_iterator(file):
        yield {**member, '__url__': str(path)}


def _decode(entry: dict[str, Any], name: str) -> Sample:
    encoded = entry['jpg'] if 'jpg' in entry else entry['png']
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError('its image cannot be decoded')
    with np.load(io.BytesIO(entry['npz']), allow_pickle=False) as arrays:
        labels = {f.name: torch.from_numpy(arrays[f.name]) for f in fields(HandLabels)}
        camera = torch.from_numpy(arrays['camera_matrix_px'])
        complete = bool(arrays['all_hands_labelled'])
    pixels = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)
    text = entry.get('txt', name.encode()).decode()
    sample = Sample(pixels.contiguous(), camera, HandLabels(**labels), text, complete)
    sample.check()
    return sample
