"""Muon: orthogonal steps of AdamW's size for matrices, AdamW for everything else."""

import pytest
import torch
from torch import Tensor, nn

from handos_training.checkpoint import load_optimizer_state, optimizer_state
from handos_training.config import OptimConfig
from handos_training.muon import Muon, orthogonalised
from handos_training.optim import build_optimizer, set_learning_rate

MUON = OptimConfig(optimizer='muon', lr=1e-2, weight_decay=0.0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.Flatten(),
        nn.Linear(8 * 16, 5),
    ).to(memory_format=torch.channels_last)  # fmt: skip


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad(set_to_none=True)
        module(torch.randn(4, 3, 4, 4, generator=generator)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize('shape', [(12, 40), (40, 12), (24, 24)])
def test_all_singular_values_become_about_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(2, *shape), full_matrices=False)
    spread = torch.diag(torch.logspace(0, -2, min(shape)))
    step = orthogonalised(u @ spread @ v)
    assert step.shape == (2, *shape)
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.3 and values.max() < 1.3
    # Directions stay: U^T (U S V^T) V is diagonal.
    inner = u.mT @ step @ v.mT
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 0.1


def test_a_step_has_the_size_of_adamws() -> None:
    for shape in ((64, 64), (32, 128), (128, 32)):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape)
        Muon([{'params': [weight], 'orthogonal': True}], lr=0.5, weight_decay=0.0).step()
        assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.1, rel=0.25)


def test_matrices_turn_and_the_rest_is_adamw() -> None:
    def run(optimizer: str) -> dict[str, Tensor]:
        module = network()
        config = OptimConfig(optimizer=optimizer, lr=1e-2, weight_decay=0.1)  # type: ignore[arg-type]
        train(module, build_optimizer(module, config), range(1))
        return {name: value.detach() for name, value in module.named_parameters()}

    ours, adamw = run('muon'), run('adamw')
    assert {name for name in ours if torch.equal(ours[name], adamw[name])} == {
        '0.bias', '2.weight', '2.bias', '4.bias',
    }  # fmt: skip


def test_a_closure_is_evaluated_once_and_before_the_step() -> None:
    with_closure, without = network(), network()
    images = torch.randn(4, 3, 4, 4)

    def closure() -> float:
        loss = with_closure(images).square().sum()
        loss.backward()
        return float(loss.detach())

    loss = build_optimizer(with_closure, MUON).step(closure)
    expected = without(images).square().sum()
    expected.backward()
    build_optimizer(without, MUON).step()
    assert loss == pytest.approx(float(expected.detach()))
    for a, b in zip(with_closure.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_badly_scaled_problem_is_solved() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(256, 32) * torch.logspace(0, -1.5, 32)
    inputs = inputs @ torch.linalg.svd(torch.randn(32, 32))[0]
    goal = inputs @ torch.randn(32, 32)
    module = nn.Linear(32, 32, bias=False)
    optimizer = build_optimizer(module, MUON)
    losses = []
    for step in range(200):
        set_learning_rate(optimizer, 50 * (1 - step / 200))
        optimizer.zero_grad(set_to_none=True)
        loss = (module(inputs) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-3 * losses[0]


def test_a_saved_state_goes_on_alike() -> None:
    straight, halfway = network(), network()
    train(straight, build_optimizer(straight, MUON), range(6))
    before = build_optimizer(halfway, MUON)
    train(halfway, before, range(3))
    after = build_optimizer(halfway, MUON)
    load_optimizer_state(after, *optimizer_state(before))
    train(halfway, after, range(3, 6))
    for a, b in zip(straight.parameters(), halfway.parameters(), strict=True):
        assert torch.equal(a, b)
