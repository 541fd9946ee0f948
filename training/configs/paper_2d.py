"""The paper's 2D stage: HInt, COCO-WholeBody and OneHand10K on a frozen Grounding DINO.

Adam, learning rate 1e-3, cosine over the last 16 of 40 epochs, 16 images a step over all
processes, long edge 1280. The terms without a label (3D) drop out. Give your own roots with
--data.real. docs/reproduce.md has the rows of Table 6.
"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='2d',
    model='paper',
    long_edge=1280,
    image_sizes_hw=((736, 1280),),
    global_batch=16,
    epochs=40,
    out=Path('runs/paper_2d'),
    optim=OptimConfig(warmup_steps=0, max_grad_norm=0.0, ema_decay=0.0),
    data=DataConfig(
        real=('hint:data/hint', 'coco_wholebody:data/coco', 'onehand10k:data/onehand10k'),
        validation=('hint:data/hint:val',),
        num_workers=8,
    ),
)
