"""`base`: joints, mesh and translation on the frozen detector, after base_2d."""

from dataclasses import replace
from pathlib import Path

from handos_training.config import load_config

config = replace(
    load_config('base_2d'),
    stage='full',
    init_from=Path('runs/base_2d/weights'),
    num_steps=200_000,
    out=Path('runs/base_full'),
)
