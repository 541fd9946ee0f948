"""Batches whose gradients are added up teach what one batch of all their images teaches."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from hand_samples import labelled_sample
from small_runs import SIZE_HW, config_of, losses_of
from torch import nn

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.config import LossWeights, NetworkConfig, TrainConfig, load_config
from handos_training.data.feed import StoredBatches
from handos_training.data.sample import Sample
from handos_training.data.transform import letterbox
from handos_training.sources import scheduled
from handos_training.stages.network import build_network
from handos_training.synth.cache import write_shard
from handos_training.train import Trainer


def far_truth(sample: Sample) -> Sample:
    """`sample` with a truth so far from any start that no absolute error has its kink near.

    Of thousands of vertices one is often within rounding of its truth, and where sums in another
    order turn its sign, the gradients of whole and parts really differ.
    """
    hands = replace(
        sample.hands,
        joints_m=3 * sample.hands.joints_m + 1,
        vertices_m=3 * sample.hands.vertices_m + 1,
    )
    return sample.replace(hands=hands)


@pytest.fixture
def plain(tmp_path: Path) -> TrainConfig:
    """A run without a batch norm that is trained, on images with one and two hands."""
    torch.manual_seed(0)
    samples = [far_truth(letterbox(labelled_sample(seed), SIZE_HW)) for seed in range(6)]
    uneven = [s if n % 2 else s.replace(hands=s.hands[:1]) for n, s in enumerate(samples)]
    write_shard(tmp_path / 'cache' / 'shard-00000.safetensors', uneven)
    config = config_of(
        tmp_path / 'cache', tmp_path, batch_size=2,
        network=NetworkConfig(side_tuning='none'),
    )  # fmt: skip
    build_network(config, HandModel.embedded()).save_pretrained(tmp_path / 'start')
    return replace(config, train_detector=False, init_from=tmp_path / 'start')


def step(config: TrainConfig) -> tuple[dict[str, float], torch.Tensor]:
    """Figures and gradients of the first step of a run."""
    trainer = Trainer(config)
    norms = [m for m in trainer.bare_module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(parameter.requires_grad for norm in norms for parameter in norm.parameters())
    feed = StoredBatches(trainer.sources, config.batch_size, [SIZE_HW], 0)
    figures = trainer.train_step([feed[k].batch for k in range(config.accumulate)])
    parameters = [p for p in trainer.bare_module.parameters() if p.grad is not None]
    return figures, torch.cat([p.grad.flatten() for p in parameters])


def in_parts(config: TrainConfig, out: Path) -> TrainConfig:
    return replace(config, out=out, batch_size=1, accumulate=2)


def test_parts_add_up_to_the_whole(plain: TrainConfig, tmp_path: Path) -> None:
    figures, whole = step(replace(plain, out=tmp_path / 'whole'))
    of_parts, gradients = step(in_parts(plain, tmp_path / 'parts'))
    assert of_parts == pytest.approx(figures, rel=1e-5)
    # Sums of float32 in another order; the largest gradient is 0.1.
    torch.testing.assert_close(gradients, whole, rtol=1e-4, atol=1e-5)


def test_gradients_without_normals_add_up_more_closely(plain: TrainConfig, tmp_path: Path) -> None:
    # Normals of an untrained mesh, whose triangles are slivers, blow rounding up.
    smooth = replace(plain, weights=LossWeights(normal=0, normal_consistency=0))
    _, whole = step(replace(smooth, out=tmp_path / 'whole'))
    _, gradients = step(in_parts(smooth, tmp_path / 'parts'))
    torch.testing.assert_close(gradients, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_layers_that_are_computed_again_teach_the_same(
    plain: TrainConfig, tmp_path: Path, precision: Literal['fp32', 'bf16']
) -> None:
    kept = replace(plain, precision=precision, out=tmp_path / 'kept')
    again = replace(kept, checkpoint_layers=True, out=tmp_path / 'again')
    figures, gradients = step(kept)
    figures_again, gradients_again = step(again)
    assert figures_again == pytest.approx(figures, rel=1e-6)
    torch.testing.assert_close(gradients_again, gradients, rtol=1e-5, atol=1e-6)


def test_resumes_between_steps(plain: TrainConfig, tmp_path: Path) -> None:
    config = replace(plain, batch_size=1, accumulate=2, num_steps=2)
    Trainer(config).run()
    losses = losses_of(tmp_path)
    shutil.rmtree(tmp_path / 'checkpoints' / 'step_00000002')
    Trainer(config, resume=True).run()
    assert losses_of(tmp_path) == pytest.approx(losses, rel=1e-5)


def test_a_step_has_the_images_that_were_asked_for() -> None:
    config = scheduled(replace(load_config('paper_2d'), epochs=None, accumulate=4), [], 2)
    assert config.batch_size == 2
    with pytest.raises(UserError, match='3 processes that accumulate 4'):
        scheduled(replace(config, global_batch=16), [], 3)


@pytest.mark.parametrize('changes', [{'stage': 'dense'}, {'train_detector': True}])
def test_a_detector_that_is_trained_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match='frozen detector'):
        replace(load_config('paper_full'), accumulate=2, **changes)
