"""The hand model in torch: batched, differentiable, the same results as in numpy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from handos_model.hand.model import PARENTS, HandModel

BUFFERS = (
    'v_template',
    'shapedirs',
    'posedirs',
    'joint_regressor',
    'joint_regressor_21',
    'skinning_weights',
    'faces',
    'tip_vertices',
)


def rodrigues(axis_angle: Tensor) -> Tensor:
    """Rotation vectors `[...,3]` in radians as matrices `[...,3,3]`, smooth at zero."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    return torch.matrix_exp(cross.reshape(*axis_angle.shape, 3))


def rigid_transforms(rotations: Tensor, joints_m: Tensor) -> tuple[Tensor, Tensor]:
    """World rotations `[...,16,3,3]` and offsets `[...,16,3]` of the chain: x -> R x + t."""
    turns: list[Tensor] = []
    offsets_m: list[Tensor] = []
    for joint, parent in enumerate(PARENTS):
        turn, pivot = rotations[..., joint, :, :], joints_m[..., joint, :, None]
        if parent < 0:
            turns.append(turn)
            offsets_m.append(pivot - turn @ pivot)
        else:
            world = turns[parent] @ turn
            turns.append(world)
            offsets_m.append(turns[parent] @ pivot + offsets_m[parent] - world @ pivot)
    return torch.stack(turns, -3), torch.stack(offsets_m, -3).squeeze(-1)


class TorchHandModel(nn.Module):
    """`HandModel` as buffers (not saved with a network: the template's hash is)."""

    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    joint_regressor: Tensor
    joint_regressor_21: Tensor
    skinning_weights: Tensor
    faces: Tensor
    tip_vertices: Tensor

    def __init__(self, hand_model: HandModel, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.template_hash = hand_model.template_hash
        for name in BUFFERS:
            value = torch.tensor(getattr(hand_model, name))
            value = value.to(dtype) if value.is_floating_point() else value
            self.register_buffer(name, value, persistent=False)

    def forward(self, rotations: Tensor, betas: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`vertices_m [...,778,3]`, `joints_m [...,21,3]` as `HandModel.pose` gives them.

        `rotations [...,16,3,3]`, `betas [...,10]` (zeros if None).
        """
        v_shaped = self.v_template
        if betas is not None:
            v_shaped = v_shaped + torch.einsum('vcs,...s->...vc', self.shapedirs, betas)
        pivots_m = self.joint_regressor @ v_shaped
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        bend = (rotations[..., 1:, :, :] - identity).flatten(-3)
        v_posed = v_shaped + torch.einsum('vcp,...p->...vc', self.posedirs, bend)
        turns, offsets_m = rigid_transforms(rotations, pivots_m)
        blended = torch.einsum('vj,...jab->...vab', self.skinning_weights, turns)
        vertices_m = (blended @ v_posed[..., None]).squeeze(-1) + self.skinning_weights @ offsets_m
        return vertices_m, self.joint_regressor_21 @ vertices_m
