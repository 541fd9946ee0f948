"""`base` and `paper` at full width on small images: train, resume, export.

The hub's detectors stand in the hub's cache with their true shapes and seeded weights.
"""

from __future__ import annotations

import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_samples import labelled_sample
from hub_detectors import Hub

from handos_ros.commands.export import export
from handos_training.config import DataConfig, OptimConfig, TrainConfig
from handos_training.data.transform import letterbox
from handos_training.synth.cache import write_shard
from handos_training.train import Trainer

HUB_IDS = {
    'base': 'PekingU/rtdetr_v2_r18vd',
    'paper': 'IDEA-Research/grounding-dino-tiny',
}


def true_shapes(model: str) -> Any:
    """What the hub has under the model's id, with random weights."""
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        RTDetrV2Config,
        RTDetrV2ForObjectDetection,
    )

    torch.manual_seed(0)
    if model == 'paper':
        found = GroundingDinoForObjectDetection(GroundingDinoConfig())
        # Of random weights a quarter of the scores are exactly 1, and which of them are among the
        # best 100 is then chance, in torch as in a graph.
        found.model.decoder.layer_norm.weight.data *= 0.05
        return found
    backbone = {
        'model_type': 'rt_detr_resnet', 'depths': [2, 2, 2, 2], 'layer_type': 'basic',
        'hidden_sizes': [64, 128, 256, 512], 'out_features': ['stage2', 'stage3', 'stage4'],
    }  # fmt: skip
    config = RTDetrV2Config(
        backbone_config=backbone, encoder_in_channels=[128, 256, 512], decoder_layers=3,
        hidden_expansion=0.5, id2label={0: 'hand'},
    )  # fmt: skip
    return RTDetrV2ForObjectDetection(config)


@pytest.mark.long
@pytest.mark.parametrize('model', ['base', 'paper'])
def test_trains_resumes_and_exports(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size_hw = (192, 256)  # 1,020 places in four levels, for Grounding DINO's 900 queries
    Hub(tmp_path / 'hub', monkeypatch).publish(HUB_IDS[model], true_shapes(model))
    samples = [letterbox(labelled_sample(seed), size_hw) for seed in range(2)]
    write_shard(tmp_path / 'cache' / 'shard-00000.safetensors', samples)
    config = TrainConfig(
        stage='full', model=model, image_sizes_hw=(size_hw,), batch_size=2, num_steps=2,
        precision='bf16', checkpoint_every=1, log_every=1, max_queries_per_hand=2,
        checkpoint_layers=model == 'paper', out=tmp_path / 'run',
        optim=OptimConfig(warmup_steps=1),
        data=DataConfig((tmp_path / 'cache',), tmp_path / 'cache', 1, num_workers=0),
    )  # fmt: skip
    trainer = Trainer(config)
    frozen = {name: value.clone() for name, value in trainer.network.detector.state_dict().items()}
    began = time.perf_counter()
    trainer.run()
    seconds = (time.perf_counter() - began) / 2
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with capsys.disabled():
        print(f'\n{model}: {seconds:.1f} s a step of two images {size_hw}, peak {peak_gb:.1f} GB')
    for name, value in trainer.network.detector.state_dict().items():
        assert torch.equal(value, frozen[name]), name
    shutil.rmtree(sorted((tmp_path / 'run' / 'checkpoints').glob('step_*'))[-1])
    Trainer(replace(config), resume=True).run()
    exported = tmp_path / 'exported'
    export(str(tmp_path / 'run' / 'weights'), exported, hands='1')
    assert (exported / 'detector.onnx').is_file() and (exported / 'decoder.onnx').is_file()
