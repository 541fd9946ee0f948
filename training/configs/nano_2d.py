"""`nano`, second stage: 2D joints, the detector trained along (our departure from the paper)."""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='2d',
    model='nano',
    init_from=Path('runs/nano_dense/weights'),
    train_detector=True,
    dense_along=True,
    image_sizes_hw=((192, 256), (256, 320)),
    batch_size=16,
    num_steps=15_000,
    max_queries_per_hand=2,
    out=Path('runs/nano_2d'),
    optim=OptimConfig(optimizer='adamw', lr=5e-4, weight_decay=0.01, warmup_steps=100,
                      max_grad_norm=5.0, detector_factor=0.7, backbone_factor=0.7,
                      ema_decay=0.999),
    data=DataConfig(cache=(Path('runs/cache'),), focus=0.4),
)  # fmt: skip
