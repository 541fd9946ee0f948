"""`nano`, first stage of three, from nothing: backbone and encoder on dense targets.

Images are small and most are framed around a hand, so that a hand fills the pixels that are paid
for. `handos-train cache --out runs/cache --height 288 --width 384` first: every stage reads the
same images with fresh augmentation. Weak labels of photographs (`data.real`) help.
"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='dense',
    model='nano',
    image_sizes_hw=((128, 160),),
    batch_size=48,
    num_steps=20_000,
    out=Path('runs/nano_dense'),
    optim=OptimConfig(optimizer='adamw', lr=7e-4, weight_decay=0.01, warmup_steps=100,
                      max_grad_norm=5.0, ema_decay=0.999),
    data=DataConfig(cache=(Path('runs/cache'),), focus=0.85),
)  # fmt: skip
