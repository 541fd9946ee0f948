"""`base`: 2D joints on a frozen RT-DETRv2-R18.

The hub's weights know the classes of COCO, which has no hand: fine-tune the detector on hands
first (`base_detector`), or name one that knows them with --detector.
"""

from pathlib import Path

from handos_training.config import OptimConfig, TrainConfig

config = TrainConfig(
    stage='2d',
    model='base',
    init_from=Path('runs/base_detector/weights'),
    image_sizes_hw=((640, 640),),
    batch_size=16,
    num_steps=100_000,
    out=Path('runs/base_2d'),
    optim=OptimConfig(optimizer='adamw', lr=5e-4, weight_decay=1e-4),
)
