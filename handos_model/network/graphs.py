"""The two graphs that every backend runs, as torch modules over one network.

Between them stand a few lines of numpy (choosing instances), so that both have static shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from handos_model.network.detectors.protocol import DetectorOutput
from handos_model.network.handos import HandOS

MAX_QUERIES = 100

DETECTOR_INPUTS = ('image',)
DETECTOR_OUTPUTS = ('features', 'queries', 'boxes_cxcywh', 'scores')
DECODER_INPUTS = ('features', 'queries', 'boxes_cxcywh')
DECODER_OUTPUTS = ('joints_2d', 'visibility', 'vertices_m', 'joints_m', 'translation_m', 'right')


class DetectorGraph(nn.Module):
    """image uint8 [1,H,W,3] -> features [1,L,C], queries [1,Q,2d], boxes [1,Q,4], scores [1,Q].

    The image is RGB, letterboxed. Q is the number of the detector's queries, or the best 100
    of them; their order is not defined.
    """

    def __init__(self, network: HandOS) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect in one image; the cast comes first, because TensorRT takes uint8 nowhere else."""
        features = self.network.encode(image.float().permute(0, 3, 1, 2))
        return detector_outputs(features.detector, features.values_source)


def detector_outputs(found: DetectorOutput, features: Tensor) -> tuple[Tensor, ...]:
    """The detector graph's outputs, of the best `MAX_QUERIES` queries."""
    queries, boxes, scores = found.instance_queries, found.boxes_cxcywh, found.scores
    if scores.shape[1] > MAX_QUERIES:
        scores, index = scores.topk(MAX_QUERIES, dim=1)
        rows = index.unsqueeze(-1)
        queries = queries.gather(1, rows.expand(-1, -1, queries.shape[-1]))
        boxes = boxes.gather(1, rows.expand(-1, -1, 4))
    return features.float(), queries.float(), boxes.float(), scores.float()


class DecoderGraph(nn.Module):
    """features [1,L,C], queries [K,2d], boxes [K,4] -> the last layer's hands.

    `right` [K] is the query's probability of a right hand, 0.5 without a side head.
    """

    def __init__(
        self,
        network: HandOS,
        spatial_shapes: tuple[tuple[int, int], ...],
        size_hw: tuple[int, int],
    ) -> None:
        super().__init__()
        self.network = network
        self.size_hw = size_hw
        self.spatial_shapes = spatial_shapes

    def forward(
        self, features: Tensor, queries: Tensor, boxes_cxcywh: Tensor
    ) -> tuple[Tensor, ...]:
        """Reconstruct K hands of one image."""
        image_index = torch.zeros(queries.shape[0], dtype=torch.int64, device=queries.device)
        hands = self.network.decoder(
            features,
            self.spatial_shapes,
            self.size_hw,
            image_index,
            queries,
            boxes_cxcywh,
        )[-1]
        return (
            hands.joints_2d.float(),
            hands.visibility_logits.float().sigmoid(),
            hands.vertices_m.float(),
            hands.joints_m.float(),
            hands.translation_m.float(),
            queries[:, 0] * 0 + 0.5  # no constant: ONNX wants outputs of nodes
            if hands.right_logits is None
            else hands.right_logits.sigmoid(),
        )


@torch.no_grad()
def build_graphs(
    network: HandOS, size_hw: tuple[int, int] | None = None
) -> tuple[DetectorGraph, DecoderGraph]:
    """Both graphs at `size_hw` (the config's, where none is given).

    The feature levels' shapes are found by running the detector once.
    """
    size_hw = size_hw or network.config.input_size_hw
    image = torch.zeros(1, 3, *size_hw, dtype=torch.uint8)
    device = next(network.parameters()).device
    shapes = network.encode(image.to(device)).spatial_shapes
    return DetectorGraph(network).eval(), DecoderGraph(network, shapes, size_hw).eval()
