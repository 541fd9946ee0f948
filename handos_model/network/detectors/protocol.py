"""What the network asks of a detector, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

SpatialShapes: TypeAlias = tuple[tuple[int, int], ...]
# (values [B,L,heads,dh], spatial_shapes, locations [B,T,heads,levels,points,2] normalised,
#  weights [B,T,heads,levels,points]) -> [B,T,heads*dh]: the signature of every published
# multi-scale deformable attention kernel, so that one can take the place of ours.
Sampler: TypeAlias = Callable[[Tensor, SpatialShapes, Tensor, Tensor], Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass
class DetectorOutput:
    """Everything that the network reads from a DETR-like detector.

    Boxes are normalised to the network's input image. `memory` and `spatial_shapes` run from the
    finest level to the coarsest. All tensors are detached where the detector is frozen.
    """

    memory: Tensor  # [B,L,d], the encoder's output F_e, levels concatenated
    spatial_shapes: SpatialShapes  # (h, w) a level, sum of h*w = L
    queries_initial: Tensor  # [B,Q,d], Q0: what enters the detector's decoder
    queries_final: Tensor  # [B,Q,d], Q6: what leaves its last layer
    boxes_cxcywh: Tensor  # [B,Q,4]
    scores: Tensor  # [B,Q], probability of a hand
    logits: Tensor  # [B,Q,classes] as the family returns them
    backbone_maps: tuple[Tensor, ...]  # [B,c,h,w], finest first
    token_logits: Tensor | None = None  # [B,Q,classes] of the tokens that queries start from

    @property
    def instance_queries(self) -> Tensor:
        """[Q0, Q6] side by side: [B,Q,2d]."""
        return torch.cat([self.queries_initial, self.queries_final], dim=-1)


class Detector(Protocol):
    """A DETR-like detector behind one face; `model` is the plain transformers module."""

    dim: int  # d of memory and queries
    num_levels: int
    backbone_channels: tuple[int, ...]
    model: nn.Module

    def __call__(self, images: Tensor) -> DetectorOutput:
        """Detect in `images` [B,3,H,W] RGB in [0,1]; normalisation is the family's own."""
        ...


class DetectorBase(nn.Module):
    """What the families share: freezing, normalisation, capture of inner tensors.

    A frozen detector has no gradient, stays in eval mode whatever `train()` says, and runs under
    no_grad, so that no parameter and no batch-norm statistic ever changes.
    """

    dim: int
    num_levels: int
    backbone_channels: tuple[int, ...]

    def __init__(self, model: nn.Module, freeze: bool, normalise: bool) -> None:
        super().__init__()
        self.model = model
        self.normalises = normalise  # by ImageNet's statistics
        self.mean = nn.Buffer(torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        # Hooks write here during a forward; a plain dict, so that it is no part of the module.
        self._captured: dict[str, Any] = {}
        self.freeze = freeze
        self.set_frozen(freeze)

    def set_frozen(self, frozen: bool) -> None:
        """Freeze, or release for the detector's own training stage."""
        self.freeze = frozen
        self.model.requires_grad_(not frozen)
        self.train(not frozen)

    def train(self, mode: bool = True) -> DetectorBase:
        super().train(mode and not self.freeze)
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0,1] as the wrapped model wants them."""
        return (images - self.mean) / self.std if self.normalises else images

    def forward(self, images: Tensor) -> DetectorOutput:
        """Detect in `images` [B,3,H,W] RGB in [0,1]."""
        gradient = torch.is_grad_enabled() and not self.freeze
        with torch.set_grad_enabled(gradient), self._fresh_capture():
            return self.detect(self.normalise(images))

    def detect(self, pixels: Tensor) -> DetectorOutput:
        """The family's part: normalised pixels in, the common output out."""
        raise TypeError(f'{type(self).__name__} must define detect')

    @contextmanager
    def _fresh_capture(self) -> Iterator[None]:
        self._captured.clear()
        try:
            yield
        finally:
            self._captured.clear()


def flatten_maps(maps: list[Tensor] | tuple[Tensor, ...]) -> tuple[Tensor, SpatialShapes]:
    """Maps [B,d,h,w] of all levels as one sequence [B,L,d], and their (h, w)."""
    shapes = tuple((int(level.shape[2]), int(level.shape[3])) for level in maps)
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1), shapes


def unflatten_maps(memory: Tensor, shapes: SpatialShapes) -> list[Tensor]:
    """The maps [B,d,h,w] that `flatten_maps` made one sequence [B,L,d] of."""
    levels = torch.split(memory, [h * w for h, w in shapes], dim=1)
    return [
        level.transpose(1, 2).reshape(level.shape[0], -1, h, w)
        for level, (h, w) in zip(levels, shapes, strict=True)
    ]
