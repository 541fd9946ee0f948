"""Side tuning: learnable features F_s beside a frozen detector (paper, sections 3.2 and VI.1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from handos_model.config import SideTuningConfig
from handos_model.network.detectors.protocol import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    DetectorOutput,
    flatten_maps,
)


class SideTuning(nn.Module):
    """Three convolutions a scale on the backbone's maps, joined to the encoder's memory: F_GD.

    Levels of the memory beyond the backbone's maps start from its last map with stride 2, as the
    detectors themselves make them.
    """

    def __init__(
        self,
        config: SideTuningConfig,
        memory_dim: int,
        backbone_channels: tuple[int, ...],
        num_levels: int,
    ) -> None:
        super().__init__()
        self.source, self.combine = config.source, config.combine
        if config.source == 'none':
            self.dim = memory_dim
            return
        # What is added has the memory's width, whatever detector it is.
        width = memory_dim if config.combine == 'add' else config.width
        config = replace(config, width=width)
        self.dim = memory_dim + (config.width if config.combine == 'concat' else 0)
        if config.source == 'swin_tiny':
            self.swin = SwinTiny()
            backbone_channels = self.swin.channels
        extra = num_levels - len(backbone_channels)
        channels = [(c, 1) for c in backbone_channels] + [(backbone_channels[-1], 2)] * extra
        self.scales = nn.ModuleList(_scale(config, c, stride) for c, stride in channels)

    def forward(self, detected: DetectorOutput, images: Tensor) -> Tensor:
        """F_GD [B,L,C], the source of the decoder's values; `images` [B,3,H,W] RGB in [0,1]."""
        if self.source == 'none':
            return detected.memory
        maps = list(detected.backbone_maps if self.source == 'backbone' else self.swin(images))
        maps += [maps[-1]] * (len(self.scales) - len(maps))
        tuned, shapes = flatten_maps(
            [scale(m) for scale, m in zip(self.scales, maps, strict=True)]
        )
        if shapes != detected.spatial_shapes:
            raise ValueError(
                f'side features {shapes} and memory {detected.spatial_shapes} differ in shape'
            )
        if self.combine == 'add':
            return detected.memory + tuned
        return torch.cat([detected.memory, tuned], dim=-1)


class SwinTiny(nn.Module):
    """A Swin-T from scratch; its maps of strides 8, 16 and 32 stand for the backbone's."""

    channels = (192, 384, 768)

    def __init__(self) -> None:
        super().__init__()
        from transformers import SwinBackbone, SwinConfig

        stages = ['stage2', 'stage3', 'stage4']
        self.net = SwinBackbone(SwinConfig(out_features=stages))
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.mean, self.std = nn.Buffer(mean, persistent=False), nn.Buffer(std, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps [B,c,h,w], finest first, of images [B,3,H,W] in [0,1]."""
        return tuple(self.net((images - self.mean) / self.std).feature_maps)


def _scale(config: SideTuningConfig, channels: int, stride: int) -> nn.Sequential:
    hidden = config.hidden or config.width
    kernels = (3, 3, 3) if config.hidden is None else (1, 3, 1)
    strides = (stride, 1, 1) if config.hidden is None else (1, stride, 1)
    widths = (channels, hidden, hidden, config.width)
    layers: list[nn.Module] = []
    for i, (kernel, step) in enumerate(zip(kernels, strides, strict=True)):
        conv = nn.Conv2d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')
        layers += [conv, nn.BatchNorm2d(widths[i + 1])]
        if i < 2:
            layers.append(nn.ReLU(inplace=True))
    if config.combine == 'add':  # what is added starts at nothing, so that the memory is seen
        nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
