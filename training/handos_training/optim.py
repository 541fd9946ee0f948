"""The optimiser, its learning rate over time, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from handos_training.config import OptimConfig
from handos_training.muon import Muon


def learning_rate_factor(step: int, done: float, config: OptimConfig) -> float:
    """Linear warm-up, then 1 up to `constant_fraction` of the run, then a cosine to the end.

    `done` in [0,1] is the share of the run that lies before `step`.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if done <= config.constant_fraction:
        return 1.0
    progress = min(1.0, (done - config.constant_fraction) / (1 - config.constant_fraction))
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return config.final_factor + (1 - config.final_factor) * cosine


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam, AdamW or Muon over the trainable parameters.

    No weight decay on biases, norms and embeddings; `backbone_factor` times the rate on the
    detector's backbone, `detector_factor` on the rest of the detector. Muon takes the weights of
    linear maps and convolutions, and leaves the rest to AdamW.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if 'detector.' in name:
            factor = config.backbone_factor if '.backbone.' in name else config.detector_factor
        decayed = parameter.ndim >= 2 and 'embed' not in name.rsplit('.', 1)[-1]
        decay = config.weight_decay if decayed else 0.0
        matrix = config.optimizer == 'muon' and decayed and name.endswith('weight')
        groups.setdefault((factor, decay, matrix), []).append(parameter)
    if not groups:
        raise ValueError('nothing to train: every parameter is frozen')
    parameters = [
        {
            'params': group,
            'lr': config.lr * factor,
            'base_lr': config.lr * factor,
            'weight_decay': decay,
            'orthogonal': matrix,
        }
        for (factor, decay, matrix), group in groups.items()
    ]
    kinds: dict[str, type[torch.optim.Adam]] = {
        'adam': torch.optim.Adam, 'adamw': torch.optim.AdamW, 'muon': Muon,
    }  # fmt: skip
    return kinds[config.optimizer](parameters, lr=config.lr, betas=config.betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group to `factor` times its own base rate."""
    for group in optimizer.param_groups:
        group['lr'] = group['base_lr'] * factor


# Not torch's AveragedModel: that copies the frozen detector as well, and cannot change places.
class WeightAverage:
    """Exponential moving average of a module's parameters and floating-point buffers.

    The module's tensors are looked up once: build it after the module has moved to its
    device and has been wrapped, which both may replace buffers.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = _tracked(module)
        self.values = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`; early on the average is short."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), list(self._live.values()), 1 - decay)

    @torch.no_grad()
    def load(self, values: dict[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, average in self.values.items():
            average.copy_(values[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the module run on the averages inside the `with` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._live.items():
            kept = value.clone()
            value.copy_(self.values[name])
            self.values[name].copy_(kept)


def _tracked(module: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters, and the floating-point buffers that a checkpoint holds."""
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    saved = module.state_dict().keys()
    buffers = {
        name: value
        for name, value in module.named_buffers()
        if value.is_floating_point() and name in saved
    }
    return trained | buffers
