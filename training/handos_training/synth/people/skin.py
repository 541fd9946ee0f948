"""The look of an arm's skin: tone, red knuckles and finger tips, pale palms, creases, nails."""

from __future__ import annotations

import torch
from torch import Tensor

from handos_model.hand.pose_limits import INDEX, LITTLE, MIDDLE, RING, THUMB
from handos_training.synth.people.arm import NAIL, ArmModel
from handos_training.synth.render.mesh import Material
from handos_training.synth.render.surface import cloth_colours, vertex_normals
from handos_training.synth.sampling import Sampler

FINGERTIPS = (4, 8, 12, 16, 20)


class SkinPainter:
    """Per-vertex albedo, material and gloss of arms; places are found once on the rest pose."""

    def __init__(self, arm: ArmModel) -> None:
        vertices = arm.v_template
        normals = vertex_normals(vertices[None], arm.faces)[0]
        hand = vertices[arm.template_indices]
        pivots, joints = arm.joint_regressor @ hand, arm.joint_regressor_21 @ hand

        def near(points: Tensor, radius_m: float) -> Tensor:
            return (-torch.cdist(vertices, points).square() / (2 * radius_m**2)).exp().amax(1)

        up = torch.tensor([0.0, 0.0, 0.008], device=vertices.device)
        chains = (THUMB, INDEX, MIDDLE, RING, LITTLE)
        knuckles = [c + i for c in chains for i in (0, 1)]
        bends = [c + i for c in chains for i in (1, 2)]
        dorsal = normals[:, 2].clamp(-1, 1)
        self.knuckle = near(pivots[knuckles] + up, 0.008) * (2 * dorsal).clamp(0, 1)  # [V]
        self.fingertip = near(joints[list(FINGERTIPS)], 0.010)
        self.crease = near(pivots[bends] - up, 0.0035) * (dorsal < 0.2)
        fade = (1 - 4 * arm.along_arm).clamp(0, 1)  # over the wrist
        self.palmar = (0.5 - dorsal).clamp(0, 1) * fade
        # Only vertices inside a nail, so that its colour ends at its edge.
        beside = torch.zeros(len(vertices), dtype=torch.bool, device=vertices.device)
        beside[arm.faces[~arm.is_nail_face].flatten()] = True
        self.nail = (arm.region == NAIL) & ~beside
        self.nail_edge = (arm.region == NAIL) & beside
        self.material = torch.where(self.nail, int(Material.NAIL), int(Material.SKIN))

    def __call__(self, tones: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
        """Albedo [N,V,3] and gloss [N,V] of arms whose skin has the linear `tones` [N,3]."""
        N = len(tones)
        tone = tones[:, None]
        darkness = (1 - tone.mean(-1, keepdim=True) / 0.35).clamp(0, 1)
        albedo = tone * (
            1
            + self.palmar[:, None] * darkness * torch.tensor([1.5, 1.2, 1.1], device=tones.device)
        )
        blood = (0.7 * self.knuckle + 0.8 * self.fingertip).clamp(0, 1)[:, None]
        red = torch.tensor([1.10, 0.84, 0.82], device=tones.device)
        albedo = albedo * (1 - (1 - red) * blood * sampler.uniform(0.2, 1, N, 1, 1))
        lines = self.crease[:, None] * sampler.uniform(0.1, 0.4, N, 1, 1)
        albedo = (albedo * (1 - lines)).clamp(0.01, 0.85)
        polish = cloth_colours(N, sampler)[:, None]
        bare = (albedo * 1.15 + 0.05).clamp(max=0.85)
        nails = torch.where(sampler.coin(0.12, N, 1, 1), polish, bare)
        share = (self.nail + 0.5 * self.nail_edge)[:, None]
        albedo = albedo + share * (nails - albedo)
        gloss = sampler.uniform(0.1, 0.4, N, 1) * (1 + self.nail.float())
        return albedo, gloss
