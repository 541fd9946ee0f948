"""Random numbers on one device from one generator, in the shapes that a scene needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Sampler:
    """Draws tensors on the generator's device; the same seed gives the same scene."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.device = generator.device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, std: float, *shape: int) -> Tensor:
        return std * torch.randn(shape, generator=self.generator, device=self.device)

    def coin(self, probability: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device) < probability

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def choice(self, weights: Sequence[float], count: int) -> Tensor:
        """`count` indices [count] drawn with the given weights, which need not sum to one."""
        if count == 0:
            return torch.zeros(0, dtype=torch.int64, device=self.device)
        table = torch.tensor(weights, dtype=torch.float32, device=self.device)
        return torch.multinomial(table, count, replacement=True, generator=self.generator)

    def rotations(self, count: int) -> Tensor:
        """[count,3,3] uniform over SO(3): normalised Gaussian quaternions."""
        w, x, y, z = torch.nn.functional.normalize(self.normal(1, count, 4), dim=-1).unbind(-1)
        rows = (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
                2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
                2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y))  # fmt: skip
        return torch.stack(rows, -1).view(count, 3, 3)


def axis_angle_matrix(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations [...,3,3] by `angle` [...] rad about unit `axis` [...,3] (Rodrigues' formula)."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(*x.shape, 3, 3)
    sine, cosine = angle[..., None, None].sin(), angle[..., None, None].cos()
    identity = torch.eye(3, dtype=axis.dtype, device=axis.device)
    return identity + sine * cross + (1 - cosine) * (cross @ cross)


def frame_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Frames [...,3,3] with columns `first`, `second` made orthogonal to it, and their cross."""
    a = torch.nn.functional.normalize(first, dim=-1)
    b = second - (second * a).sum(-1, keepdim=True) * a
    b = torch.nn.functional.normalize(b, dim=-1)
    return torch.stack([a, b, torch.linalg.cross(a, b)], -1)
