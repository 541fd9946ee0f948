"""`nano`, second stage: boxes and scores with denoising queries, after nano_dense."""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='detector',
    model='nano',
    init_from=Path('runs/nano_dense/weights'),
    image_sizes_hw=((224, 288), (256, 320)),
    batch_size=16,
    num_steps=15_000,
    out=Path('runs/nano_detector'),
    optim=OptimConfig(optimizer='adamw', lr=5e-4, weight_decay=1e-4, warmup_steps=300,
                      ema_decay=0.999),
    data=DataConfig(cache=(Path('runs/cache'),)),
)  # fmt: skip
