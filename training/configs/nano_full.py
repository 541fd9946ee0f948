"""`nano`, last stage: joints, mesh and translation, the detector trained along.

One image size, that of the exported network: boxes are told in parts of the image, so one and the
same hand would have to be told differently at every size.
"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='full',
    model='nano',
    init_from=Path('runs/nano_dense/weights'),
    train_detector=True,
    freeze_to_stride=8,
    dense_along=True,
    image_sizes_hw=((224, 288),),
    batch_size=32,
    num_steps=40_000,
    max_queries_per_hand=1,
    out=Path('runs/nano_full'),
    optim=OptimConfig(optimizer='muon', lr=1e-3, backbone_factor=0.3,
                      weight_decay=0.01, warmup_steps=40,
                      constant_fraction=0.15, final_factor=0.02, max_grad_norm=5.0,
                      ema_decay=0.998),
    data=DataConfig(cache=(Path('runs/cache'),), focus=0.35, focus_side=(0.2, 1.15), mosaic=0.3),
)  # fmt: skip
