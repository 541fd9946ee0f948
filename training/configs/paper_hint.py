"""The paper's full stage for HInt: FreiHAND, HInt, COCO-WholeBody and OneHand10K (Table 5).

204,000 images, each as often as any other; only FreiHAND's have a mesh. The rows of Tables 7 and 8
change one option of this run.
"""

from dataclasses import replace
from pathlib import Path

from handos_training.config import load_config

paper = load_config('paper_full')
config = replace(
    paper,
    out=Path('runs/paper_hint'),
    data=replace(
        paper.data,
        real=(
            *('freihand:data/freihand', 'hint:data/hint'),
            *('coco_wholebody:data/coco', 'onehand10k:data/onehand10k'),
        ),
        validation=('hint:data/hint:val', 'freihand:data/freihand:evaluation'),
        flip=0.5,
    ),
)
