"""`nano`, a stage between, which may be left out: 2D joints, the detector trained along.

Cheaper an image than the full stage, because the vertex tokens are missing. (The paper's first
stage; training the detector along is our departure.)
"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='2d',
    model='nano',
    init_from=Path('runs/nano_dense/weights'),
    train_detector=True,
    freeze_to_stride=8,
    dense_along=True,
    image_sizes_hw=((224, 288),),
    batch_size=24,
    num_steps=10_000,
    max_queries_per_hand=2,
    out=Path('runs/nano_2d'),
    optim=OptimConfig(optimizer='adamw', lr=7e-4, weight_decay=0.01, warmup_steps=40,
                      max_grad_norm=5.0, detector_factor=0.6, backbone_factor=0.5,
                      ema_decay=0.998),
    data=DataConfig(cache=(Path('runs/cache'),), focus=0.6, focus_side=(0.35, 0.95)),
)  # fmt: skip
