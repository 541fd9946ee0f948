"""The lean forms compute what the plain network computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_networks import random_images, small_config, small_network
from torch.utils._python_dispatch import TorchDispatchMode

from handos_model.backends.parity import detector_parity
from handos_model.config import ScoreConfig
from handos_model.network.attention import sample_by_grid
from handos_model.network.detectors.protocol import SpatialShapes
from handos_model.network.graphs import DETECTOR_OUTPUTS, build_graphs
from handos_model.network.lean.atlas import Atlas
from handos_model.network.lean.dfine import why_not_lean
from handos_model.network.lean.graphs import lean_graphs
from handos_model.network.lean.window import Window

BOXES = torch.tensor([[0.5, 0.4, 0.3, 0.5], [0.98, 0.97, 0.6, 0.4], [0.1, 0.2, 0.0, 0.05]])


@pytest.mark.parametrize('shapes', [((6, 8), (3, 4), (2, 2)), ((4, 5), (4, 4), (3, 3)), ((5, 7),)])
def test_one_map_of_all_levels_samples_as_they_do(shapes: SpatialShapes) -> None:
    heads, points, T = 2, 3, 50
    generator = torch.Generator().manual_seed(0)
    L = sum(h * w for h, w in shapes)
    values = torch.randn(1, L, heads, 5, generator=generator)
    shape = (1, T, heads, len(shapes), points)
    locations = torch.rand(*shape, 2, generator=generator) * 4 - 1.5  # many lie outside
    weights = torch.rand(shape, generator=generator)
    expected = sample_by_grid(values, shapes, locations, weights)[0].T
    atlas = Atlas(Window.everything(shapes), heads, points)
    columns = torch.zeros(T, atlas.columns // 2, 2)
    columns[:] = locations.view(T, -1, 2)
    slope = atlas.slope.view(2, -1, 2).diagonal(dim1=0, dim2=2)
    grid = (columns * slope).view(T, -1) + atlas.offset
    cells = atlas.spread(values.view(L, -1)).T
    found = atlas.sample(cells, grid, weights.view(T, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'attention': 'full', 'start': 'query'},
        {'attention': 'independent', 'queries': 'unified'},
        {'attention': 'unidirectional', 'layers_2d': 1, 'layers_3d': 1},
    ],
)
@pytest.mark.parametrize('hands', [1, 3])
def test_the_lean_decoder_is_the_decoder(changes: dict[str, str | int], hands: int) -> None:
    network = small_network(small_config(**{'layers_2d': 2, 'layers_3d': 2, **changes}))
    detector, plain = build_graphs(network)
    _, lean = lean_graphs(detector, plain)
    image = random_images(1).permute(0, 2, 3, 1).to(torch.uint8)
    with torch.no_grad():
        features, queries, _, _ = detector(image)
        inputs = features, queries[0, :hands], BOXES[:hands]
        expected, found = plain(*inputs), lean(*inputs)
    for one, other in zip(expected, found, strict=True):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('score', [None, ScoreConfig(tokens=1.5, queries=0.5, offset=-0.25)])
def test_the_lean_detector_is_the_detector(score: ScoreConfig | None) -> None:
    config = small_config()
    network = small_network(replace(config, detector=replace(config.detector, score=score)))
    plain, decoder = build_graphs(network)
    lean, _ = lean_graphs(plain, decoder)
    assert lean is not plain
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = random_images(1).permute(0, 2, 3, 1).to(torch.uint8)
    with torch.no_grad():
        sides = [
            {
                name: value.numpy()
                for name, value in zip(DETECTOR_OUTPUTS, graph(image), strict=True)
            }
            for graph in (plain, lean)
        ]
    errors = detector_parity(*sides, network.config.input_size_hw)
    assert errors['unmatched'] == 0
    assert errors['boxes_px'] < 0.01
    assert errors['scores'] < 1e-4
    assert errors['features_relative'] < 1e-4
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_families_keep_their_graph() -> None:
    network = small_network(small_config('rt_detr_v2'))
    detector, decoder = build_graphs(network)
    assert why_not_lean(network.detector) is not None
    assert lean_graphs(detector, decoder)[0] is detector


class NoCopiesFromHost(TorchDispatchMode):
    """Refuses numbers that become tensors: on a GPU each is a copy, which no CUDA graph holds."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        assert 'lift_fresh' not in str(function), 'makes a tensor of numbers in every run'
        return function(*args, **(kwargs or {}))


def test_the_lean_graphs_copy_nothing_from_the_host() -> None:
    """The plain detector does: transformers writes the sizes of maps into a tensor."""
    plain_detector, plain_decoder = build_graphs(small_network())
    lean_detector, lean_decoder = lean_graphs(plain_detector, plain_decoder)
    image = random_images(1).permute(0, 2, 3, 1).to(torch.uint8)
    with torch.inference_mode():
        with NoCopiesFromHost():
            features, queries, boxes, _ = lean_detector(image)
            lean_decoder(features, queries[0, :1], boxes[0, :1])
        with pytest.raises(AssertionError, match='of numbers'), NoCopiesFromHost():
            plain_detector(image)
