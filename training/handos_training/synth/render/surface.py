"""Small pieces of surface: normals, colours, and instances of one mesh as part of a scene."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from handos_training.synth.render.mesh import OTHER_PART, Material, SceneMesh
from handos_training.synth.sampling import Sampler

_XYZ_TO_RGB = ((3.2406, -1.5372, -0.4986), (-0.9689, 1.8758, 0.0415), (0.0557, -0.2040, 1.0570))


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals [N,V,3] of N poses [N,V,3] of one mesh [F,3]."""
    by_vertex = vertices.transpose(0, 1).contiguous()  # gathers along the first axis are fast
    a, b, c = (by_vertex.index_select(0, faces[:, i]) for i in range(3))
    face_normals = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(by_vertex)
    for corner in range(3):
        normals.index_add_(0, faces[:, corner], face_normals)
    return normalize(normals.transpose(0, 1), dim=-1, eps=1e-12)


def blend_skin(points_m: Tensor, bones: Tensor, weights: Tensor) -> Tensor:
    """Linear blend skinning: points [N,V,3] by affine `bones` [N,J,3,4] with `weights` [V,J]."""
    N, V = points_m.shape[:2]
    # Channel-first: a product of tiny matrices for every vertex is several times as slow.
    m = (bones.flatten(2).transpose(1, 2) @ weights.T).view(N, 3, 4, V)
    x, y, z = points_m.transpose(1, 2)[:, None].contiguous().unbind(2)
    posed = m[:, :, 3].addcmul_(m[:, :, 0], x).addcmul_(m[:, :, 1], y).addcmul_(m[:, :, 2], z)
    return posed.transpose(1, 2).contiguous()


class Smoother:
    """Moves each vertex of some triangles half-way to the mean of its neighbours."""

    def __init__(self, faces: Tensor, num_vertices: int) -> None:
        edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        code = torch.cat([edges[:, 0] * num_vertices + edges[:, 1],
                          edges[:, 1] * num_vertices + edges[:, 0]])  # fmt: skip
        code = code.sort().values
        code = code[torch.cat([torch.ones_like(code[:1]), code.diff()]) != 0]
        self.to, self.source = code // num_vertices, code % num_vertices  # directed edges [E]
        degree = torch.bincount(self.to, minlength=num_vertices)
        self.inside = degree > 0  # [V]
        self.share = 0.5 / degree.clamp(min=1)[:, None, None]

    def __call__(self, points: Tensor, times: int) -> Tensor:
        """Points [N,V,3] smoothed `times` times; other vertices stay where they are."""
        by_vertex = points.transpose(0, 1).contiguous()
        for _ in range(times):
            total = torch.zeros_like(by_vertex)
            total.index_add_(0, self.to, by_vertex.index_select(0, self.source))
            moved = 0.5 * by_vertex + total * self.share
            by_vertex = torch.where(self.inside[:, None, None], moved, by_vertex)
        return by_vertex.transpose(0, 1)


def lab_to_linear_rgb(lab: Tensor) -> Tensor:
    """CIE L*a*b* (D65) [...,3] to linear sRGB [...,3], clipped to what a surface can reflect."""
    luminance = (lab[..., 0] + 16) / 116
    f = torch.stack([luminance + lab[..., 1] / 500, luminance, luminance - lab[..., 2] / 200], -1)
    xyz = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    xyz = xyz * torch.tensor([0.95047, 1.0, 1.08883], device=lab.device)
    return (xyz @ torch.tensor(_XYZ_TO_RGB, device=lab.device).T).clamp(0.01, 0.9)


def skin_tones(count: int, sampler: Sampler) -> Tensor:
    """Linear albedos [count,3] over the whole human range (CIE Lab of measured skin)."""
    lightness = sampler.uniform(28, 76, count)
    redness = sampler.uniform(8, 16, count)
    yellowness = (6 + 0.19 * lightness + sampler.normal(2.5, count)).clamp(7, 25)
    return lab_to_linear_rgb(torch.stack([lightness, redness, yellowness], -1))


def cloth_colours(count: int, sampler: Sampler) -> Tensor:
    """Linear albedos [count,3]: mostly greys, blacks, whites and muted colours, as people wear."""
    lightness = sampler.uniform(8, 92, count)
    chroma = sampler.uniform(0, 1, count) ** 2 * 60
    hue = sampler.uniform(0, 2 * torch.pi, count)
    lab = torch.stack([lightness, chroma * hue.cos(), chroma * hue.sin()], -1)
    return lab_to_linear_rgb(lab)


def instances(
    vertices_m: Tensor,
    normals: Tensor,
    albedo: Tensor,
    texture_m: Tensor,
    material: Tensor,
    gloss: Tensor,
    faces: Tensor,
    image: Tensor,
    face_part: Tensor | None = None,
    keep: Tensor | None = None,
    mirrored: Tensor | None = None,
) -> SceneMesh:
    """N instances [N,V,3] of one mesh [F,3] as a flat scene mesh.

    `albedo` [N,V,3], `texture_m` [V,3] or [N,V,3], `material` [V], `gloss` [N,V], `image` [N],
    `face_part` [N,F], `keep` [N,F] leaves faces out, `mirrored` [N] reverses the winding.
    """
    N, V = vertices_m.shape[:2]
    F = len(faces)
    if keep is None:
        keep = torch.ones(N, F, dtype=torch.bool, device=faces.device)
    instance, face = keep.nonzero().unbind(1)
    flat_faces = faces[face]
    if mirrored is not None:
        flat_faces = torch.where(mirrored[instance, None], flat_faces.flip(1), flat_faces)
    other = torch.full_like(face, OTHER_PART)
    part = other if face_part is None else face_part[instance, face]
    return SceneMesh(
        vertices_m=vertices_m.reshape(-1, 3),
        normals=normals.reshape(-1, 3),
        albedo=albedo.expand(N, V, 3).reshape(-1, 3),
        texture_m=texture_m.expand(N, V, 3).reshape(-1, 3),
        material=material.expand(N, V).reshape(-1),
        gloss=gloss.expand(N, V).reshape(-1),
        faces=flat_faces + (instance * V)[:, None],
        face_image=image[instance],
        face_part=part,
        vertex_image=image.repeat_interleave(V),
    )


def uniform_material(material: Material, count: int, device: torch.device) -> Tensor:
    return torch.full((count,), int(material), dtype=torch.int64, device=device)
