"""Muon: momentum whose steps are orthogonal matrices (Jordan et al. 2024).

A gradient matrix is dominated by a few directions; making all its singular values equal lets the
rare ones learn as fast. Steps are scaled to the size of AdamW's (Liu et al. 2025, section 2.2), so
that both take the same learning rate and weight decay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ADAMW_RMS = 0.2  # typical size of an element of AdamW's step at learning rate 1
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: singular values to about [0.7, 1.2], fast


# Not torch.optim.Muon: it came with torch 2.9, takes matrices only, and steps them one by one.
class Muon(torch.optim.AdamW):
    """Muon for the parameter groups with `orthogonal` set, AdamW for the others.

    Convolution kernels [out,in,h,w] are matrices [out, in*h*w].
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; gradients of the orthogonal groups are used up. Returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group['orthogonal']:
                self._orthogonal_step(group)
        super().step()
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        parameters = [one for one in group['params'] if one.grad is not None]
        if not parameters:
            return
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state['step'] = torch.zeros(())  # AdamW looks for it when a state is loaded
                state['momentum'] = torch.zeros_like(parameter)
        gradients = [one.grad for one in parameters]
        momenta = [self.state[one]['momentum'] for one in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        torch._foreach_lerp_(gradients, momenta, MOMENTUM)  # Nesterov's
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            nesterov = gradient.flatten(1)
            alike[nesterov.shape[0], nesterov.shape[1]].append((parameter, nesterov))
            parameter.grad = None  # AdamW, next, passes over what has none
        torch._foreach_mul_(parameters, 1 - group['lr'] * group['weight_decay'])
        for (rows, columns), members in alike.items():
            steps = orthogonalised(torch.stack([matrix for _, matrix in members]))
            size = group['lr'] * ADAMW_RMS * max(rows, columns) ** 0.5
            changed = [parameter for parameter, _ in members]
            changes = [one.view_as(own) for own, one in zip(changed, steps, strict=True)]
            torch._foreach_add_(changed, changes, alpha=-size)


def orthogonalised(matrices: Tensor) -> Tensor:
    """U V^T of matrices [P,m,n] = U S V^T, about, by Newton-Schulz iterations in bfloat16."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    steps: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return steps
