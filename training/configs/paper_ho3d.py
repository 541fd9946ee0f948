"""The paper's full stage on HO3D v3 (Table 3)."""

from dataclasses import replace
from pathlib import Path

from handos_training.config import load_config

paper = load_config('paper_full')
config = replace(
    paper,
    out=Path('runs/paper_ho3d'),
    data=replace(paper.data, real=('ho3d:data/ho3d',), validation=('ho3d:data/ho3d:evaluation',)),
)
