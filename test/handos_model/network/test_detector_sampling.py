"""Deformable attention of detectors, swapped for a sampler of ours and put back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from handos_model.backends import torch as torch_backend
from handos_model.network.detectors.sampling import detector_sampling


class OfLevels(nn.Module):
    """As D-FINE and RT-DETRv2 hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.ms_deformable_attn_core: Any = lambda *_: 'its own'


class MultiScaleDeformableAttention(nn.Module):
    """As Grounding DINO names it."""

    def forward(self, *_: Any) -> str:
        return 'its own'


def seen(value: Any, shapes: Any, locations: Tensor, weights: Tensor) -> tuple[Any, ...]:
    return shapes, tuple(locations.shape), tuple(weights.shape), float(weights.sum())


def test_points_of_levels_are_split_and_padding_weighs_nothing() -> None:
    module = OfLevels()
    detector: Any = SimpleNamespace(model=nn.ModuleList([module]))
    locations, weights = torch.rand(1, 5, 4, 6, 2), torch.ones(1, 5, 4, 6)
    with detector_sampling(detector, seen):  # type: ignore[arg-type]
        for counts, most in (([3, 3], 3), ([4, 2], 4)):
            found = module.ms_deformable_attn_core(None, 'shapes', locations, weights, counts)
            assert found == ('shapes', (1, 5, 4, 2, most, 2), (1, 5, 4, 2, most), 5 * 4 * 6)
        with pytest.raises(ValueError, match="'discrete' cannot be swapped"):
            module.ms_deformable_attn_core(None, 's', locations, weights, [3, 3], 'discrete')
    assert module.ms_deformable_attn_core() == 'its own'


def test_grounding_dino_s_is_given_its_shapes_as_a_list() -> None:
    module = MultiScaleDeformableAttention()
    detector: Any = SimpleNamespace(model=nn.ModuleList([module]))
    locations, weights = torch.rand(1, 5, 4, 2, 3, 2), torch.ones(1, 5, 4, 2, 3)
    with detector_sampling(detector, seen):  # type: ignore[arg-type]
        found = module(None, torch.zeros(2, 2), [(2, 3), (1, 2)], None, locations, weights, 64)
    assert found == ([(2, 3), (1, 2)], (1, 5, 4, 2, 3, 2), (1, 5, 4, 2, 3), 5 * 4 * 6)
    assert module() == 'its own'


def test_the_torch_backend_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_backend.missing() is None
    monkeypatch.setattr(torch_backend, 'find_spec', lambda name: None)
    assert torch_backend.missing() == ("torch is not installed (pip install 'handos-ros[torch]')")
