"""A cache that runs can train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_samples import labelled_sample
from small_runs import SIZE_HW

from handos_training.data.transform import letterbox
from handos_training.synth.cache import write_shard


@pytest.fixture(scope='module')
def drawn_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('cache')
    samples = [letterbox(labelled_sample(seed), SIZE_HW) for seed in range(6)]
    write_shard(folder / 'shard-00000.safetensors', samples[:4])
    write_shard(folder / 'shard-00001.safetensors', samples[4:])
    return folder
