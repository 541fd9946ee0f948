"""The paper's full stage on DexYCB's split s0, which has left and right hands (Table 4)."""

from dataclasses import replace
from pathlib import Path

from handos_training.config import load_config

paper = load_config('paper_full')
config = replace(
    paper,
    out=Path('runs/paper_dexycb'),
    data=replace(
        paper.data,
        real=('dexycb:data/dexycb',),
        validation=('dexycb:data/dexycb:s0_val',),
        flip=0.5,
    ),
)
