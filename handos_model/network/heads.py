"""Heads after each decoder layer: joints, visibility, mesh and translation.

Three choices make them learn from few images; each leaves the paper's function within reach:

- Joints are refined as in DETR: reference + offset in units of the hand's box, the reference
  detached. No sigmoid, because a joint may lie outside the image.
- Vertices are a residual over a weak-perspective lift: the 2D joints, scaled to metres, and their
  depths, where joint maps tell them, are spread over the vertices by the lifting matrix, so that
  the orientation and the side are never learned by heart. The residual accumulates over layers.
- Translation is the pixel of the root, as an offset from the 2D root joint, and the logarithm of
  depth, as an offset from the depth that weak perspective gives under the virtual camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from handos_model.types import ROOT_JOINT

HAND_EXTENT_M = 0.16  # about the longer side of a hand's box; where the scale head starts
RESIDUAL_UNIT_M = 0.1
MIN_DEPTH_M = 0.05


@dataclass
class DecoderOutput:
    """What one decoder layer says of N hands.

    Image coordinates are normalised to the network's input. Metres are under the virtual camera:
    focal length = longer side of the input, principal point in the middle. Vertices and joints
    are relative to the root (joint 9). Without a mesh (2D layers, 2D stage) the rest is None.
    """

    joints_2d: Tensor  # [N,21,2]
    visibility_logits: Tensor  # [N,21]
    vertices_m: Tensor | None = None  # [N,778,3]
    joints_m: Tensor | None = None  # [N,21,3] = J V
    translation_m: Tensor | None = None  # [N,3], of the root
    joints_projected: Tensor | None = None  # [N,21,2]
    right_logits: Tensor | None = None  # [N], of a right hand; the last layer's, with a side head


@dataclass
class HandFrame:
    """The box of each hand, and the image that it is normalised to."""

    centre: Tensor  # [N,1,2]
    size: Tensor  # [N,1,2]
    image_px: Tensor  # [2], (W, H)
    focal_px: float  # of the virtual camera

    @classmethod
    def of(cls, boxes_cxcywh: Tensor, image_size_hw: tuple[int, int]) -> HandFrame:
        boxes = boxes_cxcywh.float()[:, None]
        height, width = image_size_hw
        # Filled on the device: a copy from the host cannot be captured in a CUDA graph.
        image_px = torch.stack([boxes.new_full((), width), boxes.new_full((), height)])
        size = boxes[..., 2:].clamp_min(1e-3)
        return cls(boxes[..., :2], size, image_px, float(max(image_size_hw)))

    @property
    def extent_px(self) -> Tensor:
        """Longer side of the box, [N,1]."""
        return (self.size * self.image_px).amax(-1)


class MLP(nn.Sequential):
    """Linear, ReLU, ..., Linear; the last one starts at zero on request."""

    def __init__(self, *dims: int, zero: bool = False) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(dims):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        super().__init__(*layers[:-1])
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(
                    layer.weight, gain=0.0 if zero and layer is self[-1] else 1
                )
                nn.init.zeros_(layer.bias)


class JointHeads(nn.Module):
    """2D joints and their visibility."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.offset = MLP(dim, dim, dim, 2, zero=True)
        self.visibility = nn.Linear(dim, 1)

    def forward(self, tokens: Tensor, centres: Tensor, frame: HandFrame) -> DecoderOutput:
        """Joint tokens [N,21,d] and reference centres [N,21,2]."""
        joints = centres + self.offset(tokens).float() * frame.size
        return DecoderOutput(joints, self.visibility(tokens).squeeze(-1).float())


class MeshHeads(nn.Module):
    """Vertices of the coarse mesh, and the translation of the root."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = MLP(dim, dim, 1, zero=True)
        self.residual = MLP(dim, dim, dim, 3)
        self.translation = MLP(dim, dim, dim, 3, zero=True)

    def forward(
        self,
        tokens: Tensor,
        joints_2d: Tensor,
        depths_m: Tensor,
        lifting: Tensor,
        previous: Tensor,
        frame: HandFrame,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [N,21+V+1,d], 2D joints, their depths [N,21] in metres, lifting [V,21] and
        the residual of the layer before [N,V,3].

        Returns the residual and the vertices [N,V,3] in metres, before the root is subtracted,
        and the translation [N,3].
        """
        J = joints_2d.shape[1]
        joint_tokens, vertex_tokens = tokens[:, :J], tokens[:, J:-1]
        joints_2d = joints_2d.detach()
        log_scale = self.log_scale(joint_tokens.mean(1)).float().clamp(-3, 3)
        metres_per_px = HAND_EXTENT_M * log_scale.exp() / frame.extent_px  # [N,1]

        root = joints_2d[:, ROOT_JOINT : ROOT_JOINT + 1]
        joints_px = (joints_2d - root) * frame.image_px
        joints_m = torch.cat([joints_px * metres_per_px[:, None], depths_m[..., None]], dim=-1)
        residual = previous.detach() + RESIDUAL_UNIT_M * self.residual(vertex_tokens).float()

        offset = self.translation(tokens[:, -1]).float()
        pixel = root[:, 0] + offset[:, :2] * frame.size[:, 0]
        depth = frame.focal_px * metres_per_px.detach() * offset[:, 2:].clamp(-3, 3).exp()
        ray = (pixel - 0.5) * frame.image_px / frame.focal_px
        translation = torch.cat([ray * depth, depth], dim=-1)
        return residual, exact_matmul(lifting, joints_m) + residual, translation


def exact_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32 also under autocast: in bfloat16 a vertex is off by half a millimetre."""
    device = b.device.type
    if not torch.is_autocast_enabled(device):
        return a.float() @ b.float()
    with torch.autocast(device, enabled=False):
        return a.float() @ b.float()


def project(points_m: Tensor, translation_m: Tensor, frame: HandFrame) -> Tensor:
    """Pi_K(J + t) [N,J,2] under the virtual camera, normalised to the image."""
    x = points_m + translation_m[:, None]
    pixels = x[..., :2] / x[..., 2:].clamp_min(MIN_DEPTH_M) * frame.focal_px
    return pixels / frame.image_px + 0.5
