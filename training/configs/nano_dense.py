"""`nano`, first stage of four, from nothing: backbone and encoder on dense targets, small images.

On two CPU cores: `handos-train cache --out runs/cache --height 320 --width 416` first; every
stage reads the same cache with fresh augmentation.
"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='dense',
    model='nano',
    image_sizes_hw=((192, 256), (224, 288)),
    batch_size=32,
    num_steps=20_000,
    out=Path('runs/nano_dense'),
    optim=OptimConfig(optimizer='adamw', lr=2e-3, weight_decay=0.01, warmup_steps=300,
                      max_grad_norm=5.0, ema_decay=0.999),
    data=DataConfig(cache=(Path('runs/cache'),)),
)  # fmt: skip
