"""Where the decoder's joints start: read off maps of the finest features, two a joint.

Our departure from the paper, for a network that is trained from little: a joint whose reference
starts on the joint is refined from what is there, while references that start at the middle of the
box must first be told the pose by the query alone. One map says where in the image the joint is,
the other, read at that place, how far behind the root (2.5D heatmaps, Iqbal et al. 2018), so that
the mesh starts from a bent hand, not from a flat one. The maps come from the features that the
decoder samples anyway, so both graphs keep their inputs and outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from handos_model.network.detectors.protocol import SpatialShapes
from handos_model.types import NUM_JOINTS

WINDOW = 1.5  # of the box: joints may lie outside a box of visible parts
SHARPNESS = 3.0  # nearer to the most likely place than to the mean of several
OUTSIDE = -1e4  # a logit that float16 holds
DEPTH_UNIT_M = 0.1


class JointMaps(nn.Module):
    """Each joint's place, trained by cross-entropy over the cells around a hand, and its depth."""

    def __init__(self, dim: int, width: int = 96) -> None:
        super().__init__()
        self.width = width
        self.trunk = nn.Sequential(nn.Conv2d(dim, width, 3, padding=1), nn.ReLU())
        self.joint_head = nn.Conv2d(width, NUM_JOINTS, 1)
        self.depth_head = nn.Conv2d(width, NUM_JOINTS, 1)
        nn.init.zeros_(self.depth_head.weight)
        nn.init.zeros_(self.depth_head.bias)  # type: ignore[arg-type]

    def forward(self, finest: Tensor) -> tuple[Tensor, Tensor]:
        """Finest map [B,C,h,w] -> logits and depths in metres from the root, [B,21,h,w] each."""
        return self.read(self.trunk(finest))

    def read(self, trunk: Tensor) -> tuple[Tensor, Tensor]:
        """Both maps of the trunk's features [B,width,h,w]."""
        return self.joint_head(trunk), DEPTH_UNIT_M * self.depth_head(trunk).float()


def finest_map(values_source: Tensor, spatial_shapes: SpatialShapes) -> Tensor:
    """The first level of a sequence of levels [B,L,C] as a map [B,C,h,w]."""
    h, w = spatial_shapes[0]
    B, _, C = values_source.shape
    return values_source[:, : h * w].transpose(1, 2).reshape(B, C, h, w)


def joint_positions(
    logits: Tensor, depths_m: Tensor, image_index: Tensor, boxes_cxcywh: Tensor
) -> tuple[Tensor, Tensor]:
    """Expected place [N,21,2], normalised to the image, and depth [N,21] in metres of the joints.

    logits and depths_m [B,21,h,w], image of each hand [N], boxes [N,4] normalised; only cells in
    the widened box count, and always the one at its middle.
    """
    (B, J, h, w), N = logits.shape, boxes_cxcywh.shape[0]

    def of_hands(maps: Tensor) -> Tensor:
        # With one image an expansion, so that the exported graph copies nothing.
        return maps.float().expand(N, -1, -1, -1) if B == 1 else maps.float()[image_index]

    boxes = boxes_cxcywh.float()
    middle = boxes[:, None, :2].clamp(0, 1)
    x = (torch.arange(w, device=logits.device) + 0.5) / w
    y = (torch.arange(h, device=logits.device) + 0.5) / h
    reach_x = (WINDOW / 2 * boxes[:, 2:3]).clamp(min=1 / w)
    reach_y = (WINDOW / 2 * boxes[:, 3:4]).clamp(min=1 / h)
    in_x = (x - middle[..., 0]).abs() <= reach_x  # [N,w]
    in_y = (y - middle[..., 1]).abs() <= reach_y  # [N,h]
    inside = (in_y[:, :, None] & in_x[:, None, :])[:, None]
    likely = torch.where(inside, SHARPNESS * of_hands(logits), OUTSIDE).flatten(2).softmax(-1)
    likely = likely.reshape(N, J, h, w)
    places = torch.stack([(likely.sum(2) * x).sum(-1), (likely.sum(3) * y).sum(-1)], dim=-1)
    return places, (likely * of_hands(depths_m)).sum((2, 3))
