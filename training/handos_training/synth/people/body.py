"""Whole people without their arms: shape, a few bones, and the layers that they are drawn in.

The frame at rest: the base of the neck is the origin, x to the person's left, y to the back, z up.
Metres. Arms and hands are the arm model's; here they only carry the sleeves.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from handos_model.hand.model import decode_units
from handos_training.synth.render.surface import blend_skin
from handos_training.synth.sampling import axis_angle_matrix, frame_matrix

SKIN, EYE, SUIT, SHOE, HAIR, LONG_HAIR, GLASSES = range(7)  # layers
PELVIS, CHEST, NECK, HEAD = range(4)
RIGHT, LEFT = 0, 1
UPPER_ARM, FOREARM, THIGH, SHIN, FOOT = 4, 6, 8, 10, 12  # the right one; the left one follows
WRIST, EYES = 14, 16  # joints without a bone
TORSO_PARENTS = {CHEST: PELVIS, NECK: CHEST, HEAD: NECK}


@dataclass
class Posture:
    """Turns of P people's bones about x, y, z in degrees."""

    shapes: Tensor  # [P,10]
    scale: Tensor  # [P]
    chest_deg: Tensor  # [P,3]
    head_deg: Tensor  # [P,3], half of it in the neck
    thigh_deg: Tensor  # [P,2] each, how far it is raised
    shin_deg: Tensor  # [P,2] each, how far the knee is bent
    spread_deg: Tensor  # [P,2] each, outwards


@dataclass
class PosedBodies:
    """P people; bones as affine maps of the rest frame, arms still hanging as the chest does."""

    rest_m: Tensor  # [P,V,3]
    rest_joints_m: Tensor  # [P,18,3]
    bones: Tensor  # [P,14,3,4]

    def joint(self, joint: int, bone: int) -> Tensor:
        """A rest joint [P,3] carried by a bone."""
        matrix = self.bones[:, bone]
        return (matrix[:, :, :3] @ self.rest_joints_m[:, joint, :, None])[..., 0] + matrix[..., 3]


class BodyModel:
    """The people of assets/body.npz."""

    def __init__(self, device: torch.device | str = 'cpu') -> None:
        with (files('handos_training.synth') / 'assets' / 'body.npz').open('rb') as file:
            arrays = decode_units(dict(np.load(file, allow_pickle=False)))

        def tensor(name: str) -> Tensor:
            return torch.tensor(arrays[name], dtype=torch.float32, device=device)

        self.v_template = tensor('v_template')  # [V,3]
        self.shapedirs = tensor('shapedirs')  # [V,3,10]
        self.weights = tensor('skinning_weights')  # [V,14]
        self.weights = self.weights / self.weights.sum(1, keepdim=True)
        self.joints = tensor('joints')  # [18,3]
        self.joint_dirs = tensor('joint_dirs')  # [18,3,10]
        self.lips = tensor('lips')  # [V]
        self.faces = torch.tensor(arrays['faces'].astype(np.int64), device=device)  # [F,3]
        self.layer = torch.tensor(arrays['layer'].astype(np.int64), device=device)  # [V]
        self.face_layer = self.layer[self.faces[:, 0]]

    def pose(self, posture: Posture) -> PosedBodies:
        """Shape the bodies, and turn trunk, head and legs; the arms' bones come later."""
        scale = posture.scale[:, None, None]
        rest = self.v_template + torch.einsum('vcs,ps->pvc', self.shapedirs, posture.shapes)
        joints = self.joints + torch.einsum('jcs,ps->pjc', self.joint_dirs, posture.shapes)
        rest, joints = rest * scale, joints * scale
        P = len(rest)
        identity = torch.eye(3, device=rest.device).expand(P, 3, 3)
        local = [identity] * 14
        local[CHEST] = euler(posture.chest_deg)
        local[NECK] = local[HEAD] = euler(posture.head_deg / 2)
        for side, sign in ((RIGHT, 1.0), (LEFT, -1.0)):
            raised = posture.thigh_deg[:, side]
            apart = sign * posture.spread_deg[:, side]
            zero = torch.zeros_like(raised)
            local[THIGH + side] = euler(torch.stack([zero, apart, zero], -1)) @ euler(
                torch.stack([raised, zero, zero], -1)
            )
            bent = -posture.shin_deg[:, side]
            local[SHIN + side] = euler(torch.stack([bent, zero, zero], -1))
        parents = dict(TORSO_PARENTS)
        for side in (RIGHT, LEFT):
            parents |= {THIGH + side: PELVIS, SHIN + side: THIGH + side, FOOT + side: SHIN + side}
            parents |= {UPPER_ARM + side: CHEST, FOREARM + side: UPPER_ARM + side}
        world: dict[int, tuple[Tensor, Tensor]] = {
            PELVIS: (identity, torch.zeros_like(joints[:, 0]))
        }
        for bone in sorted(parents):
            turn, shift = world[parents[bone]]
            pivot = joints[:, bone]
            rotation = turn @ local[bone]
            moved = (turn @ pivot[..., None] - rotation @ pivot[..., None])[..., 0] + shift
            world[bone] = rotation, moved
        # The base of the neck stays the origin.
        turn, shift = world[NECK]
        anchor = (turn @ joints[:, NECK, :, None])[..., 0] + shift
        bones = [
            torch.cat([r, (t - anchor)[..., None]], -1) for r, t in (world[b] for b in range(14))
        ]
        return PosedBodies(rest, joints, torch.stack(bones, 1))

    def skin(self, bodies: PosedBodies) -> Tensor:
        """Vertices [P,V,3] by linear blend skinning."""
        return blend_skin(bodies.rest_m, bodies.bones, self.weights)

    def reach(self, bodies: PosedBodies, side: int, elbow_m: Tensor, wrist_m: Tensor) -> None:
        """Lay the sleeves of a side along an arm whose elbow and wrist [P,3] are given."""
        joints = bodies.rest_joints_m
        rest = joints[:, UPPER_ARM + side], joints[:, FOREARM + side], joints[:, WRIST + side]
        posed = bodies.joint(UPPER_ARM + side, CHEST), elbow_m, wrist_m
        out_rest, out_posed = bend_direction(*rest), bend_direction(*posed)
        for bone, start in ((UPPER_ARM, 0), (FOREARM, 1)):
            before, after = rest[start + 1] - rest[start], posed[start + 1] - posed[start]
            stretch = torch.ones_like(before)
            stretch[:, 0] = after.norm(dim=-1) / before.norm(dim=-1)
            frame = frame_matrix(after, out_posed) * stretch[:, None]
            turn = frame @ frame_matrix(before, out_rest).transpose(1, 2)
            shift = posed[start] - (turn @ rest[start][..., None])[..., 0]
            bodies.bones[:, bone + side] = torch.cat([turn, shift[..., None]], -1)


def bend_direction(start: Tensor, middle: Tensor, end: Tensor) -> Tensor:
    """Unit directions [P,3] from the line start-end to the joint between them."""
    axis = normalize(end - start, dim=-1)
    out = middle - start
    return normalize(out - (out * axis).sum(-1, keepdim=True) * axis, dim=-1)


def euler(angles_deg: Tensor) -> Tensor:
    """Rotations [...,3,3] = Rz Ry Rx by angles [...,3] about x, y, z."""
    axes = torch.eye(3, device=angles_deg.device).expand(*angles_deg.shape, 3)
    turns = axis_angle_matrix(axes, angles_deg.deg2rad())
    return turns[..., 2, :, :] @ turns[..., 1, :, :] @ turns[..., 0, :, :]
