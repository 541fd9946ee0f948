"""`nano`, last stage: joints, mesh and translation, the detector trained along.

It starts from nano_2d, or from nano_dense where the 2D stage is left out.
"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='full',
    model='nano',
    init_from=Path('runs/nano_2d/weights'),
    train_detector=True,
    dense_along=True,
    image_sizes_hw=((192, 256), (256, 320), (288, 384)),
    batch_size=16,
    num_steps=40_000,
    max_queries_per_hand=2,
    out=Path('runs/nano_full'),
    optim=OptimConfig(optimizer='adamw', lr=5e-4, weight_decay=0.01, warmup_steps=100,
                      max_grad_norm=5.0, detector_factor=0.7, backbone_factor=0.7,
                      constant_fraction=0.4, final_factor=0.05, ema_decay=0.9995),
    data=DataConfig(cache=(Path('runs/cache'),)),
)  # fmt: skip
