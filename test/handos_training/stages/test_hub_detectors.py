"""Pretrained detectors from the hub's cache: frozen, trained and kept, refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hand_samples import labelled_sample
from hub_detectors import Hub, seeded

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.network.detectors.reference import family_of
from handos_model.network.handos import HandOS
from handos_training.config import DataConfig, NetworkConfig, OptimConfig, TrainConfig
from handos_training.data.transform import letterbox
from handos_training.stages.network import build_network, network_config
from handos_training.synth.cache import write_shard
from handos_training.train import Trainer

SIZE_HW = (64, 96)
WIDE = {'d_model': 256, 'encoder_hidden_dim': 256, 'decoder_in_channels': [256] * 3}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path / 'hub', monkeypatch)


@pytest.fixture(scope='module')
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('cache')
    write_shard(
        folder / 'shard-00000.safetensors',
        [letterbox(labelled_sample(seed), SIZE_HW) for seed in range(2)],
    )
    return folder


def config_of(cache: Path, out: Path, **changes: object) -> TrainConfig:
    config = TrainConfig(
        stage='full', model='base', image_sizes_hw=(SIZE_HW,), batch_size=2, num_steps=2,
        precision='fp32', out=out, optim=OptimConfig(lr=1e-2, warmup_steps=1, ema_decay=0.0),
        data=DataConfig((cache,), cache, 2, num_workers=0),
    )  # fmt: skip
    return replace(config, **changes)  # type: ignore[arg-type]


def detector_weights(network: HandOS) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.detector.model.state_dict().items()}


def test_a_fine_tuned_detector_goes_from_stage_to_stage(
    hub: Hub, cache: Path, tmp_path: Path
) -> None:
    coco = {0: 'person', 1: 'bicycle', 2: 'car'}
    reference = hub.publish('somebody/rtdetr', seeded('rt_detr_v2', id2label=coco, **WIDE))
    first = config_of(cache, tmp_path / 'a', stage='detector', detector=reference)
    trainer = Trainer(first)
    before = detector_weights(trainer.network)
    trainer.run()
    tuned = detector_weights(trainer.network)
    assert not all(torch.equal(before[name], tuned[name]) for name in tuned)
    shutil.rmtree(tmp_path / 'hub')  # nothing of it is needed any more
    second = config_of(cache, tmp_path / 'b', stage='2d', init_from=tmp_path / 'a' / 'weights')
    Trainer(second).run()
    third = config_of(cache, tmp_path / 'c', init_from=tmp_path / 'b' / 'weights')
    Trainer(third).run()
    for stage in 'abc':
        network = HandOS.from_pretrained(tmp_path / stage / 'weights')
        for name, value in network.detector.model.state_dict().items():
            torch.testing.assert_close(value, tuned[name])


def test_a_detector_without_a_class_for_hands_is_not_frozen(
    hub: Hub, cache: Path, tmp_path: Path
) -> None:
    labels = {0: 'person', 1: 'bicycle', 2: 'Hand'}
    reference = hub.publish('somebody/rtdetr', seeded('rt_detr_v2', id2label=labels, **WIDE))
    config = config_of(cache, tmp_path / 'a', detector=reference)
    with pytest.raises(UserError, match="'person', not a hand"):
        build_network(config, HandModel.embedded())
    config = replace(config, network=NetworkConfig(hand_label=2))
    assert build_network(config, HandModel.embedded()).detector.hand_label == 2


@pytest.mark.parametrize('family', ['d_fine', 'rt_detr_v2', 'grounding_dino'])
def test_a_hub_id_says_its_family(family: str, hub: Hub, cache: Path, tmp_path: Path) -> None:
    model = seeded(family)
    reference = hub.publish('somebody/detector', model)
    assert family_of(reference) == family
    config = config_of(
        cache, tmp_path, model='paper', detector=reference, image_sizes_hw=((64, 96),)
    )
    for other in ('base', 'nano'):
        build_network(replace(config, model=other), HandModel.embedded())
    network = build_network(config, HandModel.embedded())
    kept = model.state_dict()
    for name, value in network.detector.model.state_dict().items():
        if name in kept:  # a slim Grounding DINO has constants of its own
            assert torch.equal(value, kept[name]), name
    network.save_pretrained(tmp_path / 'weights')
    assert HandOS.from_pretrained(tmp_path / 'weights').config.detector.reference == reference


def test_what_is_wrong_with_a_reference_is_said(hub: Hub, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'could not get the detector nobody/nothing'):
        network_config(config_of(cache, tmp_path, detector='nobody/nothing'))
    model = seeded('rt_detr_v2')
    model.save_pretrained(tmp_path / 'bert')
    text = (tmp_path / 'bert' / 'config.json').read_text()
    (tmp_path / 'bert' / 'config.json').write_text(text.replace('rt_detr_v2', 'bert'))
    with pytest.raises(UserError, match="is a 'bert'"):
        network_config(config_of(cache, tmp_path, detector=str(tmp_path / 'bert')))
    (tmp_path / 'bert' / 'config.json').write_text(text)
    shape = network_config(config_of(cache, tmp_path, detector=str(tmp_path / 'bert')))
    with pytest.raises(UserError, match='of the family rt_detr_v2'):
        HandOS.from_config(replace(shape, detector=replace(shape.detector, family='d_fine')))
    state = {k: v for k, v in model.state_dict().items() if 'enc_output' not in k}
    model.save_pretrained(tmp_path / 'torn', state_dict=state)
    torn = config_of(cache, tmp_path, detector=str(tmp_path / 'torn'))
    with pytest.raises(UserError, match=r'lacks \d+ tensors'):
        build_network(torn, HandModel.embedded())
