"""The paper's full stage on FreiHAND, from the 2D stage: 40 epochs, right hands only (Table 1).

Each image stands four times, on other backgrounds. Validation is on the evaluation set, for the
eye: the figures are of the last weights (`RUN/weights`), not of the best there.
"""

from dataclasses import replace
from pathlib import Path

from handos_training.config import load_config

paper = load_config('paper_2d')
config = replace(
    paper,
    stage='full',
    init_from=Path('runs/paper_2d/weights'),
    template=Path('MANO_RIGHT.pkl'),
    out=Path('runs/paper_full'),
    data=replace(
        paper.data,
        real=('freihand:data/freihand',),
        validation=('freihand:data/freihand:evaluation',),
        flip=0.0,
    ),
)
