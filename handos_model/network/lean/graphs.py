"""The two graphs of `network/graphs.py` in few operations, of networks that have such a form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from handos_model.network.graphs import DecoderGraph, DetectorGraph, detector_outputs
from handos_model.network.handos import HandOS
from handos_model.network.lean.decoder import LeanDecoder
from handos_model.network.lean.dfine import LeanDFine, why_not_lean
from handos_model.network.lean.window import Window
from handos_model.weights.exported import WindowPlace

WINDOW_PX = 128  # side of the window that a network has
COARSEST_STRIDE = 32


class LeanDetectorGraph(nn.Module):
    """See `graphs.DetectorGraph`."""

    def __init__(self, network: HandOS, window: Window) -> None:
        super().__init__()
        self.detector = LeanDFine(network.detector, window)  # type: ignore[arg-type]
        self.side_tuning = network.side_tuning

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        images = image.float().permute(0, 3, 1, 2)
        found = self.detector(images)
        return detector_outputs(found, self.side_tuning(found, images / 255))


@torch.no_grad()
def lean_graphs(
    detector: DetectorGraph, decoder: DecoderGraph, window: Window | None = None
) -> tuple[nn.Module, nn.Module]:
    """The lean form of both graphs; where there is none, the graph itself."""
    network = decoder.network
    window = window or Window.everything(decoder.spatial_shapes)
    lean_detector: nn.Module = detector
    if why_not_lean(network.detector) is None:
        lean_detector = LeanDetectorGraph(network, window)
    lean_decoder = LeanDecoder(network.decoder, window, network.config.input_size_hw)
    return lean_detector.eval(), lean_decoder.eval()


def window_place(network: HandOS, side_px: int) -> WindowPlace | None:
    """Where a square window lies in the network's input; None where it can have none."""
    height, width = network.config.input_size_hw
    if why_not_lean(network.detector) is not None or side_px % COARSEST_STRIDE:
        return None
    if not 0 < side_px <= min(height, width) or 2 * side_px**2 > height * width:
        return None
    top, left = ((size - side_px) // 2 // COARSEST_STRIDE for size in (height, width))
    return WindowPlace((height, width), (top * COARSEST_STRIDE, left * COARSEST_STRIDE))
