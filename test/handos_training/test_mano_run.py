"""From the user's MANO file to training, scores, a submission, an export and the node."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_samples import labelled_sample
from mini_datasets import write_freihand, write_mano

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.network.handos import HandOS
from handos_model.types import Camera
from handos_ros.commands.export import export
from handos_ros.node.parameters import Settings
from handos_ros.node.perception import PipelinePerception
from handos_training.config import DataConfig, TrainConfig
from handos_training.data.transform import letterbox
from handos_training.evaluate import EvalConfig
from handos_training.evaluate import run as evaluate
from handos_training.sources import stored_sources, training_batches, validation_batches
from handos_training.stages.network import build_network
from handos_training.synth.cache import write_shard
from handos_training.train import Trainer

SIZE_HW = (96, 128)


def weights_that_see_hands(config: TrainConfig, folder: Path) -> Path:
    """Seeded weights whose detector gives every query a score of a half and a large box."""
    torch.manual_seed(0)
    network: HandOS = build_network(
        replace(config, train_detector=True), HandModel.of(config.template)
    )
    with torch.no_grad():
        for head in network.detector.model.class_embed:
            head.bias.zero_()
        network.detector.model.model.decoder.pre_bbox_head.layers[-1].bias[2:] = 3.0
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(MANO_RIGHT.pkl, FreiHAND, the weights of two steps)."""
    folder = tmp_path_factory.mktemp('mano')
    mano = write_mano(folder)
    freihand = write_freihand(folder / 'freihand', HandModel.from_mano(mano))
    config = TrainConfig(
        stage='full',
        model='tiny',
        template=mano,
        image_sizes_hw=(SIZE_HW,),
        batch_size=2,
        num_steps=2,
        precision='fp32',
        out=folder / 'run',
        data=DataConfig(
            real=(f'freihand:{freihand}',),
            validation=(f'freihand:{freihand}:evaluation',),
            validation_samples=2,
            num_workers=0,
        ),
    )
    start = weights_that_see_hands(config, folder / 'start')
    Trainer(replace(config, init_from=start)).run()
    losses = [json.loads(line) for line in (folder / 'run' / 'log.jsonl').read_text().splitlines()]
    assert {'vertices', 'pa_mpvpe_mm'} <= {key for line in losses for key in line}
    return mano, freihand, folder / 'run' / 'weights'


def test_hands_of_another_template_teach_no_vertices(tmp_path: Path) -> None:
    mano = write_mano(tmp_path)
    cache = tmp_path / 'cache'
    write_shard(cache / 'shard-00000.safetensors', [letterbox(labelled_sample(0), SIZE_HW)])
    config = TrainConfig(stage='full', template=mano, data=DataConfig(cache=(cache,)))
    (source,) = stored_sources(config)
    sample = source.dataset[0]
    assert not sample.hands.has_vertices_m.any() and sample.hands.has_joints_m.all()
    (source,) = stored_sources(replace(config, template=None))
    assert source.dataset[0].hands.has_vertices_m.all()
    with pytest.raises(UserError, match=r'--data\.validation'):
        validation_batches(config, lambda hw: hw)
    with pytest.raises(UserError, match=r'give data\.real'):
        training_batches(config, [], lambda hw: hw, 0, 1, torch.device('cpu'))


def test_scores_and_submission(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    mano, freihand, weights = trained
    config = EvalConfig(
        'freihand', str(weights), freihand, out=tmp_path, mano=mano, backend='torch'
    )
    report = evaluate(config)
    assert report['protocol']['template'] == 'mano' and report['scores']['found'] > 0
    assert np.isfinite(report['scores']['pa_mpvpe_mm'])
    xyz, verts = json.loads((tmp_path / 'pred.json').read_text())
    assert np.shape(xyz) == (2, 21, 3) and np.shape(verts) == (2, 778, 3)
    with pytest.raises(UserError, match='--mano'):
        evaluate(replace(config, mano=None))


def test_export_and_node(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    mano, freihand, weights = trained
    with pytest.raises(UserError, match='--mano'):
        export(str(weights), tmp_path / 'exported', hands='1')
    export(str(weights), tmp_path / 'exported', hands='1', mano=mano)
    torch_scores, onnx_scores = (
        evaluate(EvalConfig('freihand', str(w), freihand, mano=mano, backend=backend))['scores']
        for w, backend in ((weights, 'torch'), (tmp_path / 'exported', 'onnxruntime'))
    )
    assert onnx_scores['pa_mpjpe_mm'] == pytest.approx(torch_scores['pa_mpjpe_mm'], rel=1e-2)
    settings = Settings(
        model=str(tmp_path / 'exported'), mano=str(mano), score_threshold=0.1, track=False
    )
    perception = PipelinePerception(settings, print)
    assert perception.template_hash == HandModel.from_mano(mano).template_hash
    image = np.full((120, 160, 3), 90, np.uint8)
    hands = perception(image, Camera.uncalibrated(160, 120), None)
    assert hands and hands[0].vertices_m.shape == (778, 3)
