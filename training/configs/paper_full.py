"""The paper's full stage on FreiHAND, from the 2D stage: 40 epochs of 130,240 images by 16."""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

EPOCHS, IMAGES, BATCH = 40, 4 * 32_560, 16  # each image stands four times, on other backgrounds

config = TrainConfig(
    stage='full',
    model='paper',
    init_from=Path('runs/paper_2d/weights'),
    template=Path('MANO_RIGHT.pkl'),
    image_sizes_hw=((736, 1280),),
    batch_size=BATCH,
    num_steps=EPOCHS * IMAGES // BATCH,
    out=Path('runs/paper_full'),
    optim=OptimConfig(optimizer='adam', lr=1e-3, constant_fraction=0.6),
    data=DataConfig(real=('freihand:data/freihand',), num_workers=8),
)
