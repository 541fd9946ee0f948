"""Runs of a few steps of the smallest network, and what they log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from handos_training.config import (
    DataConfig,
    OptimConfig,
    TrainConfig,
)

SIZE_HW = (64, 96)


def config_of(cache: Path, out: Path, **changes: object) -> TrainConfig:
    config = TrainConfig(
        stage='full',
        model='tiny',
        train_detector=True,
        image_sizes_hw=(SIZE_HW,),
        batch_size=2,
        num_steps=8,
        max_queries_per_hand=1,
        precision='fp32',
        log_every=1,
        validate_every=1000,
        checkpoint_every=1,
        keep_last=2,
        out=out,
        optim=OptimConfig(optimizer='adamw', warmup_steps=2, ema_decay=0.9),
        data=DataConfig(
            cache=(cache,), validation_cache=cache, validation_samples=2, num_workers=0
        ),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def losses_of(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / 'log.jsonl').read_text().splitlines()]
    return {line['step']: line['loss'] for line in lines if line['kind'] == 'train'}
