"""Fixtures that several packages' tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from handos_model.network.handos import HandOS

pytest_plugins = ['fault_table']
SHARED_DATA = Path(__file__).resolve().parent.parent.parent / 'shared' / 'data'


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of real photographs and recordings that stands beside a development checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip('needs the development data (real photographs) beside the checkout')
    return SHARED_DATA


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """What a test does to torch's threads ends with it; small networks are fastest with one."""
    torch = sys.modules.get('torch')
    if torch is not None:
        torch.set_num_threads(1)


TINY_BACKBONE: dict[str, Any] = {
    'stem_channels': [3, 8, 8],
    'stage_in_channels': [8, 16, 16, 16],
    'stage_mid_channels': [8] * 4,
    'stage_out_channels': [16] * 4,
    'hidden_sizes': [16] * 4,
    'stage_num_blocks': [1] * 4,
    'depths': [1] * 4,
    'stage_numb_of_layers': [1] * 4,
}
TINY_DETECTOR: dict[str, Any] = {
    'encoder_in_channels': [16] * 3,
    'encoder_hidden_dim': 32,
    'encoder_ffn_dim': 32,
    'encoder_attention_heads': 4,
    'd_model': 32,
    'decoder_in_channels': [32] * 3,
    'decoder_ffn_dim': 32,
    'decoder_layers': 2,
    'decoder_attention_heads': 4,
    'num_queries': 20,
    'num_denoising': 0,
}


def tiny_network() -> HandOS:
    """The parts of `nano`, each as small as it goes, with healthy seeded weights."""
    import torch

    from handos_model.config import DetectorConfig, HandOSConfig
    from handos_model.network.detectors.dfine import initialise_detector
    from handos_model.network.handos import HandOS

    nano = HandOSConfig.nano()
    backbone = {**nano.detector.model['backbone_config'], **TINY_BACKBONE}
    detector = {**nano.detector.model, **TINY_DETECTOR, 'backbone_config': backbone}
    config = replace(
        nano,
        name='tiny',
        detector=DetectorConfig(model=detector),
        side_tuning=replace(nano.side_tuning, width=32, hidden=16),
        decoder=replace(nano.decoder, dim=32, heads=4, ffn_dim=32, layers_2d=1, layers_3d=1),
        input_size_hw=(96, 128),
    )
    torch.manual_seed(0)
    network = HandOS.from_config(config)
    initialise_detector(network.detector.model, 0)
    wake(network)
    return network.eval()


def wake(network: HandOS) -> None:
    """Give layers that start at zero small weights, so that a wrong graph shows."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(0, 0.02, generator=generator)


@pytest.fixture(scope='session')
def make_tiny_network() -> Callable[[], HandOS]:
    """Builds the tiny network, the same each time."""
    return tiny_network


@pytest.fixture(scope='session')
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder: config, safetensors, and graphs in FP32 and FP16 for one and two hands."""
    from handos_model.export.exporter import ExportConfig, export

    folder = tmp_path_factory.mktemp('weights') / 'tiny'
    network = tiny_network()
    network.save_pretrained(folder)
    export(
        network,
        folder,
        ExportConfig(precisions=('fp32', 'fp16'), hands=(1, 2), window_px=64),
        licence='Apache-2.0',
        source_sha256='0' * 64,
    )
    return folder
