"""Shards: what is written is read again."""

from pathlib import Path

import pytest
import torch

from handos_model.errors import UserError
from handos_training.data.sample import Batch, collate
from handos_training.data.shards import ShardDataset, ShardWriter
from handos_training.synth.config import SynthConfig
from handos_training.synth.dataset import SynthHands


@pytest.fixture(scope='module')
def batch() -> Batch:
    return SynthHands(SynthConfig(height=64, width=80), 5, seed=2).batch(0)


def test_samples_survive_the_way_through_a_shard(batch: Batch, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / 'shards', per_shard=3) as writer:
        writer.write(batch)
    paths = sorted((tmp_path / 'shards').glob('*.tar'))
    assert [path.name for path in paths] == ['00000.tar', '00001.tar']
    again = collate(list(ShardDataset(paths)))
    assert again.names == batch.names
    assert torch.equal(again.camera_matrices_px, batch.camera_matrices_px)
    assert torch.equal(again.all_hands_labelled, batch.all_hands_labelled)
    for one, other in zip(again.hands, batch.hands, strict=True):
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True):
            assert torch.equal(a, b)
    difference = (again.images.float() - batch.images.float()).abs().mean()
    assert difference < 12  # JPEG


def test_a_folder_with_shards_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / '00000.tar').write_bytes(b'')
    with pytest.raises(UserError, match='empty folder'):
        ShardWriter(tmp_path)


@pytest.mark.fault('training', 'a shard is missing', 'named before training')
def test_missing_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'nowhere\.tar'):
        ShardDataset([tmp_path / 'nowhere.tar'])


@pytest.mark.fault('training', 'a corrupt shard', 'the sample is named')
def test_a_broken_sample_is_named(batch: Batch, tmp_path: Path) -> None:
    with ShardWriter(tmp_path, per_shard=9) as writer:
        writer.write(batch)
    path = tmp_path / '00000.tar'
    data = bytearray(path.read_bytes())
    start = data.find(b'\xff\xd8')
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r'00000\.tar/00000000: not a sample'):
        list(ShardDataset([path]))
