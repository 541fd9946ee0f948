"""How a run's batches, epochs and sizes follow from its data, its processes and its config."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_samples import labelled_sample
from mini_datasets import write_dexycb, write_freihand, write_mano

from handos_model.config import HandOSConfig
from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.config import DataConfig, TrainConfig, load_config
from handos_training.data.feed import StoredBatches, fixed_batches
from handos_training.data.mix import Mixture, Source
from handos_training.data.sample import Sample
from handos_training.sources import OwnTips, scheduled, stored_sources


class Blobs:
    """Samples of several sizes; the index says which."""

    def __init__(self, sizes_hw: list[tuple[int, int]]) -> None:
        self.sizes_hw = sizes_hw

    def __len__(self) -> int:
        return len(self.sizes_hw)

    def __getitem__(self, index: int) -> Sample:
        return labelled_sample(index, self.sizes_hw[index])


def test_the_paper_is_forty_epochs_of_sixteen_on_any_number_of_gpus(tmp_path: Path) -> None:
    freihand = write_freihand(tmp_path / 'freihand', HandModel.embedded(), unique=8)
    for name in ('paper_2d', 'paper_full'):
        paper = load_config(name)
        data = replace(paper.data, real=(f'freihand:{freihand}',))
        config = replace(paper, template=None, data=data)
        sources = stored_sources(config)
        for world in (1, 2, 8):
            run = scheduled(config, sources, world)
            assert run.batch_size * world == 16
            assert run.num_steps == 40 * 32 // 16
        with pytest.raises(UserError, match='cannot be shared by 3'):
            scheduled(config, sources, 3)
        optim = config.optim
        assert (optim.optimizer, optim.lr, optim.constant_fraction) == ('adam', 1e-3, 0.6)
        assert (optim.warmup_steps, optim.max_grad_norm, optim.ema_decay) == (0, 0.0, 0.0)
    with pytest.raises(UserError, match='epochs counts stored images'):
        scheduled(config, [], 1)


def test_datasets_count_by_size_unless_weighed(tmp_path: Path) -> None:
    small = write_freihand(tmp_path / 'small', HandModel.embedded(), unique=1)
    large = write_freihand(tmp_path / 'large', HandModel.embedded(), unique=4)
    config = TrainConfig(stage='full', data=DataConfig(real=(f'freihand:{small}',
                                                             f'freihand:{large}')))  # fmt: skip
    mixture = Mixture(stored_sources(config), 0)
    drawn = Counter(mixture.draw(position).source for position in range(1000))
    assert drawn == {0: 200, 1: 800}
    weighed = replace(config.data, real=(f'freihand:{small}:1', f'freihand:{large}:1'))
    mixture = Mixture(stored_sources(replace(config, data=weighed)), 0)
    assert Counter(mixture.draw(position).source for position in range(1000)) == {0: 500, 1: 500}


def test_long_edge_keeps_the_aspect() -> None:
    paper = HandOSConfig.paper()
    assert paper.size_for((480, 640)) == (960, 1280)
    assert paper.size_for((640, 480)) == (1280, 960)
    assert paper.size_for((224, 224)) == (1280, 1280)
    base = HandOSConfig.base(long_edge=640)
    assert base.size_for((427, 640)) == (448, 640)
    assert HandOSConfig.base().size_for((427, 640)) == (640, 640)
    for size in ((480, 640), (640, 480), (320, 320)):
        source = Source('blobs', Blobs([size] * 4))
        feed = StoredBatches([source], 2, base.size_for, seed=0)
        assert feed[0].batch.images.shape[2:] == base.size_for(size)
        (batch, _) = fixed_batches(source.dataset, 4, 2, base.size_for)
        assert batch.images.shape[2:] == base.size_for(size)
    mixed = Blobs([(480, 640), (640, 480)])
    halves = [StoredBatches([Source('m', mixed)], 1, base.size_for, 0, rank, 2) for rank in (0, 1)]
    whole = StoredBatches([Source('m', mixed)], 2, base.size_for, 0)
    joined = torch.cat([half[1].batch.images for half in halves])
    assert torch.equal(whole[1].batch.images, joined)


def test_training_has_one_set_of_fingertips(tmp_path: Path) -> None:
    mano = HandModel.from_mano(write_mano(tmp_path))
    root = write_dexycb(tmp_path / 'dexycb', mano)
    config = TrainConfig(
        stage='full',
        template=tmp_path / 'MANO_RIGHT.pkl',
        data=DataConfig(real=(f'dexycb:{root}',)),
    )
    (source,) = stored_sources(config)
    assert isinstance(source.dataset, OwnTips)
    hands = source.dataset[0].hands
    joints = mano.joint_regressor_21 @ hands.vertices_m[0].double().numpy()
    np.testing.assert_allclose(hands.joints_m[0], joints - joints[9], atol=1e-5)
