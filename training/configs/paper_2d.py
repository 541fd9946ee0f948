"""The paper's 2D stage: HInt, COCO-WholeBody and OneHand10K on a frozen Grounding DINO.

Adam, learning rate 1e-3, cosine over the last 40 %, batch 16, long edge 1280. The terms without
a label (3D) drop out. Give your own roots with --data.real.
"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='2d',
    model='paper',
    image_sizes_hw=((736, 1280),),
    batch_size=16,
    num_steps=300_000,
    out=Path('runs/paper_2d'),
    optim=OptimConfig(optimizer='adam', lr=1e-3, constant_fraction=0.6),
    data=DataConfig(
        real=('hint:data/hint', 'coco_wholebody:data/coco', 'onehand10k:data/onehand10k'),
        num_workers=8,
    ),
)
