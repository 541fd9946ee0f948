"""Sleeves of arms that belong to no drawn body: a loose shell around the arm above a cuff."""

from __future__ import annotations

import torch
from torch import Tensor

from handos_training.synth.people.arm import ArmModel
from handos_training.synth.render.mesh import Material, SceneMesh
from handos_training.synth.render.surface import (
    Smoother,
    cloth_colours,
    instances,
    uniform_material,
    vertex_normals,
)
from handos_training.synth.sampling import Sampler

HEM = 0.06  # part of a forearm's length over which the cloth lifts off the skin


class Tailor:
    """Cuts sleeves for posed arms; the cuff may sit anywhere from the wrist to above the elbow."""

    def __init__(self, arm: ArmModel) -> None:
        self.arm = arm
        self.faces = arm.faces[(arm.along_arm[arm.faces] > 0.03).all(1)]
        self.smooth = Smoother(self.faces, len(arm.v_template))

    def cuffs(self, has_sleeve: Tensor, sampler: Sampler) -> Tensor:
        """Where sleeves begin [N] on the arm (0 wrist, 1 elbow); 9 where there is none."""
        N = len(has_sleeve)
        long, short = sampler.uniform(0.05, 0.35, N), sampler.uniform(0.3, 1.5, N)
        return torch.where(has_sleeve, torch.where(sampler.coin(0.65, N), long, short), 9.0)

    def __call__(
        self,
        vertices_m: Tensor,
        normals: Tensor,
        cuff: Tensor,
        colours: Tensor,
        image: Tensor,
        mirrored: Tensor,
        sampler: Sampler,
    ) -> SceneMesh:
        """Sleeves of N arms [N,V,3] in the camera's frame, `cuff` [N], `colours` [N,2,3]."""
        N, V = vertices_m.shape[:2]
        along = self.arm.along_arm
        lift = ((along - cuff[:, None]) / HEM).clamp(0, 1)
        width = sampler.uniform(0.004, 0.014, N, 1)
        phase = sampler.uniform(0, 6.3, N, 1)
        rest = self.arm.v_template
        folds = (along * sampler.uniform(14, 40, N, 1) + phase).sin()
        folds = folds * (rest[:, 0] * sampler.uniform(30, 70, N, 1) + phase).cos()
        thickness = 0.0015 + lift * width * (1 + 0.45 * folds)
        cloth = self.smooth(vertices_m, 3)  # spans what is hollow beneath it
        cloth = torch.where((along > 0.1)[:, None], cloth, vertices_m)
        cloth = (
            vertices_m + (cloth - vertices_m) * lift[..., None] + normals * thickness[..., None]
        )
        normals = vertex_normals(cloth, self.faces)
        normals = torch.where(mirrored[:, None, None], -normals, normals)
        stripes = ((along * sampler.uniform(15, 60, N, 1) + phase).sin() > 0) & sampler.coin(
            0.2, N, 1
        )
        albedo = torch.where(stripes[..., None], colours[:, 1:], colours[:, :1])
        keep = (along[self.faces] >= cuff[:, None, None]).all(2)
        return instances(
            cloth, normals, albedo, rest, uniform_material(Material.CLOTH, V, rest.device),
            torch.full((N, V), 0.05, device=rest.device), self.faces, image, keep=keep,
            mirrored=mirrored,
        )  # fmt: skip

    def bare_faces(self, cuff: Tensor) -> Tensor:
        """[N,F]: the arm's faces that no sleeve hides."""
        return (self.arm.along_arm[self.arm.faces] < cuff[:, None, None] + 0.2).all(2)


def wardrobe(count: int, sampler: Sampler) -> Tensor:
    """Two colours of each outfit [count,2,3]."""
    return torch.stack([cloth_colours(count, sampler), cloth_colours(count, sampler)], 1)
