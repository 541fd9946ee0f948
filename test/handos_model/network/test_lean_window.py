"""A window's graphs answer in the coordinates of the whole, and as the whole does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from handos_model.network.graphs import build_graphs
from handos_model.network.handos import HandOS
from handos_model.network.lean.atlas import Atlas
from handos_model.network.lean.decoder import LeanDecoder
from handos_model.network.lean.graphs import lean_graphs, window_place
from handos_model.network.lean.window import Window
from handos_model.weights.exported import WindowPlace

WHOLE = ((12, 16), (6, 8), (3, 4))
PLACE = WindowPlace((96, 128), (32, 32))


def window() -> Window:
    return Window.at(WHOLE, PLACE, (64, 64))


def test_a_window_is_told_in_cells_of_every_level() -> None:
    assert window().shapes == ((8, 8), (4, 4), (2, 2))
    assert window().corners == ((4, 4), (2, 2), (1, 1))
    assert window().is_part and not Window.everything(WHOLE).is_part
    assert window().cells(2).tolist() == [5, 6, 9, 10]
    tokens = window().tokens()
    assert len(tokens) == 64 + 16 + 4
    assert tokens[0] == 4 * 16 + 4 and tokens[64] == 12 * 16 + 2 * 8 + 2
    assert Window.everything(WHOLE).tokens().tolist() == list(range(12 * 16 + 6 * 8 + 3 * 4))


def test_a_window_that_ends_between_cells_is_refused() -> None:
    with pytest.raises(AssertionError, match='between two cells'):
        Window.at(WHOLE, WindowPlace((96, 128), (16, 32)), (64, 64))


def test_sampling_in_a_window_is_sampling_in_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    whole, part = (Atlas(levels, 2, 3) for levels in (Window.everything(WHOLE), window()))
    tokens = torch.randn(12 * 16 + 6 * 8 + 3 * 4, 8, generator=generator)
    # Points whose four neighbours are in the window on the coarsest level, too.
    points = torch.tensor([0.45, 0.6]) + 0.1 * torch.rand(5, 2, generator=generator)
    weights = torch.rand(10, 9, generator=generator).view(5, -1)
    sampled = [
        atlas.sample(
            atlas.spread(given).t(), torch.addmm(atlas.offset, points, atlas.slope), weights
        )
        for atlas, given in ((whole, tokens), (part, tokens[window().tokens()]))
    ]
    torch.testing.assert_close(*sampled)


def test_a_hand_in_a_window_is_decoded_as_in_the_whole(
    make_tiny_network: Callable[[], HandOS],
) -> None:
    network = make_tiny_network()
    _, plain = build_graphs(network)
    size_hw = network.config.input_size_hw
    whole = LeanDecoder(network.decoder, Window.everything(WHOLE), size_hw).eval()
    part = LeanDecoder(network.decoder, window(), size_hw).eval()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, plain_length(), network.side_tuning.dim, generator=generator)
    queries = torch.randn(2, 2 * network.detector.dim, generator=generator)
    boxes = torch.tensor([[0.5, 0.65, 0.04, 0.05], [0.48, 0.67, 0.03, 0.04]])
    assert plain.spatial_shapes == WHOLE
    with torch.no_grad():
        expected = whole(features, queries, boxes)
        found = part(features[:, window().tokens()], queries, boxes)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def plain_length() -> int:
    return sum(h * w for h, w in WHOLE)


def test_anchors_and_positions_are_those_of_the_window_s_cells(
    make_tiny_network: Callable[[], HandOS],
) -> None:
    network = make_tiny_network()
    detector, decoder = build_graphs(network)
    whole, part = (
        lean_graphs(detector, decoder, levels)[0].detector  # type: ignore[union-attr]
        for levels in (Window.everything(WHOLE), window())
    )
    torch.testing.assert_close(part.anchors, whole.anchors[window().tokens()])
    torch.testing.assert_close(
        part.encoder.aifi[0].position, whole.encoder.aifi[0].position[window().cells(2)]
    )
    assert part.num_queries == len(window().tokens()) // 16 < whole.num_queries


@pytest.mark.parametrize(('side_px', 'there'), [(64, True), (0, False), (48, False), (96, False)])
def test_a_window_is_whole_cells_and_at_most_half_of_the_input(
    make_tiny_network: Callable[[], HandOS], side_px: int, there: bool
) -> None:
    place = window_place(make_tiny_network(), side_px)
    assert place == (WindowPlace((96, 128), (0, 32)) if there else None)
