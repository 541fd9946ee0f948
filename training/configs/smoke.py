"""Every part of a joint run in a few minutes on two cores: does the loss fall?"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='full',
    model='tiny',
    train_detector=True,
    dense_along=True,
    image_sizes_hw=((128, 160),),
    batch_size=8,
    num_steps=600,
    max_queries_per_hand=2,
    log_every=10,
    validate_every=150,
    checkpoint_every=150,
    precision='fp32',
    out=Path('runs/smoke'),
    optim=OptimConfig(optimizer='adamw', warmup_steps=20, ema_decay=0.98),
    data=DataConfig(validation_samples=32, num_workers=1),
)
