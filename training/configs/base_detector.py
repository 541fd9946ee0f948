"""`base`: RT-DETRv2-R18 from the hub, fine-tuned to find hands, on generated images."""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='detector',
    model='base',
    image_sizes_hw=((512, 512), (576, 576), (640, 640)),
    batch_size=16,
    num_steps=60_000,
    out=Path('runs/base_detector'),
    optim=OptimConfig(optimizer='adamw', lr=1e-4, weight_decay=1e-4, backbone_factor=0.1,
                      max_grad_norm=0.1, ema_decay=0.9999),
    data=DataConfig(num_workers=0),  # generated on the training device
)  # fmt: skip
