"""`handos-synth`: look at generated hands, or measure the generator."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch
import tyro
from torch.utils.data import DataLoader

from handos_model.environment import describe_machine
from handos_model.errors import UserError
from handos_training.data.sample import Batch
from handos_training.synth.config import SynthConfig
from handos_training.synth.dataset import SynthHands
from handos_training.synth.sheet import contact_sheet

DEFAULT = SynthConfig()
PREVIEW = SynthConfig(height=256, width=256)
BATCH_PIXELS = 1 << 20  # in a batch: what a batch costs whatever its size is then small
ONE_OR_TWO_HANDS = SynthConfig(hand_counts=(0.5, 0.5, 0.0, 0.0))


def preview(
    out: Path = Path('sheet.png'),
    count: int = 24,
    seed: int = 0,
    columns: int = 6,
    labels: bool = True,
    device: str = 'cpu',
    config: SynthConfig = PREVIEW,
) -> None:
    """Draw a contact sheet of `count` images with their labels."""
    batch = SynthHands(config, count, device, seed).batch(0)
    sheet = contact_sheet(batch, columns, labels)
    if not cv2.imwrite(str(out), sheet[..., ::-1]):
        raise UserError(f'{out}: cannot be written; give a .png or .jpg in a folder that exists')
    print(f'{out}: {count} images, {len(batch.hands)} labelled hands')


def bench(
    sizes: tuple[tuple[int, int], ...] = ((256, 256), (640, 480)),
    batch_size: int | None = None,
    batches: int = 8,
    workers: int = 2,
    seed: int = 0,
    device: str = 'cpu',
    config: SynthConfig = ONE_OR_TWO_HANDS,
) -> None:
    """Measure complete samples a second at each (width, height) and print JSON.

    Without `batch_size`, small images come in larger batches: 16 of 256x256, 8 of 640x480.
    """
    results = []
    for width, height in sizes:
        count = batch_size or max(8, BATCH_PIXELS // (width * height))
        results.append(measure(config, (width, height), count, batches, workers, seed, device))
    print(json.dumps({'environment': describe_machine(), 'results': results}, indent=2))


def measure(
    config: SynthConfig,
    size: tuple[int, int],
    batch_size: int,
    batches: int,
    workers: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Images a second over `batches` batches, in `workers` processes of one thread (0: here)."""
    width, height = size
    config = replace(config, width=width, height=height)
    stream = iter(_loader(config, batch_size, workers, seed, device))
    for _ in range(max(2 * workers, 1)):  # start-up, and what was prefetched during it
        next(stream)
    start, hands = time.perf_counter(), 0
    for _ in range(batches):
        hands += len(next(stream).hands)
    seconds = time.perf_counter() - start
    del stream
    # Processor time tells the same on a busy machine.
    dataset = SynthHands(config, batch_size, device, seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dataset.batch(0)
    busy = time.process_time()
    for index in range(1, 3):
        dataset.batch(index)
    busy = time.process_time() - busy
    torch.set_num_threads(threads)
    images = batches * batch_size
    return {
        'width': width,
        'height': height,
        'device': device,
        'workers': workers,
        'batch_size': batch_size,
        'images': images,
        'hands_per_image': round(hands / images, 2),
        'person_fraction': config.person_fraction,
        'images_per_second': round(images / seconds, 2),
        'cpu_ms_per_image': round(1e3 * busy / (2 * batch_size), 1),
    }


def _loader(
    config: SynthConfig, batch_size: int, workers: int, seed: int, device: str
) -> DataLoader[Batch]:
    return DataLoader(
        SynthHands(config, batch_size, device, seed),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_one_thread,
        prefetch_factor=1 if workers else None,
    )


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def main() -> None:
    try:
        tyro.extras.subcommand_cli_from_dict({'preview': preview, 'bench': bench})
    except (UserError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
