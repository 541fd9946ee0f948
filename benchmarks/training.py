"""Images per second of the generator, of the cache, and of each training stage, as JSON.

    python benchmarks/training.py [--model nano] [--batch-size 16] [--size-hw 192 256] ...

Wall-clock rates need an idle machine; images a CPU second do not, and say what one core does.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro

from handos_model.environment import describe_machine
from handos_model.hand.model import HandModel
from handos_training.config import TrainConfig
from handos_training.data.augment import AugmentConfig
from handos_training.data.feed import StoredBatches
from handos_training.data.mix import Source
from handos_training.data.sample import Batch
from handos_training.stages.losses import weighted_loss
from handos_training.stages.module import build_module, weight_of_term
from handos_training.stages.network import build_network
from handos_training.synth.cache import CacheConfig, CachedHands, generate

# name -> (stage, is the detector trained)
STAGES = {
    'dense': ('dense', False),
    'detector': ('detector', False),
    '2d': ('2d', False),
    '2d joint': ('2d', True),
    'full': ('full', False),
    'full joint': ('full', True),
}


@dataclass(frozen=True)
class Options:
    model: str = 'nano'
    batch_size: int = 16
    size_hw: tuple[int, int] = (192, 256)
    max_queries_per_hand: int = 2
    steps: int = 3
    threads: int = 0  # 0: torch's choice
    device: str = 'cpu'
    precision: str = 'bf16'
    stages: tuple[str, ...] = tuple(STAGES)


def rate(work: Callable[[], None], images: int, repeats: int) -> dict[str, float]:
    """Images a second of wall time and of CPU time, after one round to warm up."""
    work()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        'images_per_s': round(repeats * images / wall, 2),
        'images_per_cpu_s': round(repeats * images / cpu, 2),
    }


def stage_rate(options: Options, name: str, batch: Batch) -> dict[str, float]:
    """Forward, loss and backward of one stage, without the optimiser."""
    stage, joint = STAGES[name]
    # Built as trainable, because fresh weights stand in for those of an earlier stage.
    config = TrainConfig(stage=stage, model=options.model, train_detector=True,
                         max_queries_per_hand=options.max_queries_per_hand)  # fmt: skip
    hand_model = HandModel.embedded()
    network = build_network(config, hand_model)
    network.detector.set_frozen(stage in ('2d', 'full') and not joint)
    module = build_module(replace(config, train_detector=joint), network, hand_model)
    module.to(options.device).to(memory_format=torch.channels_last).train()
    batch = batch.to(options.device)

    def step() -> None:
        enabled = options.precision == 'bf16'
        with torch.autocast(options.device, torch.bfloat16, enabled=enabled):
            terms = module(batch)
        loss, _ = weighted_loss(terms, lambda term: weight_of_term(config.weights, term))
        loss.backward()
        module.zero_grad()
        if options.device == 'cuda':
            torch.cuda.synchronize()

    return rate(step, len(batch.names), options.steps)


def main(options: Options) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cache = CacheConfig(folder, 2 * options.batch_size, *options.size_hw,
                            shard_size=options.batch_size, device=options.device)  # fmt: skip
        wall, cpu = time.perf_counter(), time.process_time()
        generate(cache)
        generator = {
            'images_per_s': round(cache.num_images / (time.perf_counter() - wall), 2),
            'images_per_cpu_s': round(cache.num_images / (time.process_time() - cpu), 2),
        }
        source = Source('cache', CachedHands([folder]))
        feed = StoredBatches(
            [source], options.batch_size, [options.size_hw], 0, augment=AugmentConfig()
        )
        reading = rate(lambda: void(feed[0]), options.batch_size, options.steps)
        batch = feed[0].batch
    result = {
        'environment': describe_machine(),
        'options': asdict(options),
        'threads': torch.get_num_threads(),
        'hands_in_batch': len(batch.hands),
        'generator': generator,
        'cache_and_augmentation': reading,
        'training': {name: stage_rate(options, name, batch) for name in options.stages},
    }
    print(json.dumps(result, indent=1))


def void(_: object) -> None:
    """Let go of a value."""


if __name__ == '__main__':
    main(tyro.cli(Options))
