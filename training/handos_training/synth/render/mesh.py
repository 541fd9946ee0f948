"""Everything that is drawn in a batch of images, as one flat triangle list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor


class Material(IntEnum):
    """What a surface is made of; the shader varies colour, gloss and bump by it."""

    SKIN = 0
    NAIL = 1
    CLOTH = 2
    RIGID = 3
    HAIR = 4
    EYE = 5


# Part ids of faces: 0 is the background, hand h of an image owns 1 + 16 h ... 16 + 16 h (one id a
# skinning bone, in MANO order), and everything that is no labelled hand is OTHER_PART.
HAND_PARTS = 16
OTHER_PART = 10_000


@dataclass
class SceneMesh:
    """Triangles of all images of a batch, each in its camera frame (x right, y down, z forward).

    Faces are counter-clockwise seen from outside in that frame's right-handed sense (the normal
    (b - a) x (c - a) points outwards).
    """

    vertices_m: Tensor  # [N,3]
    normals: Tensor  # [N,3] unit
    albedo: Tensor  # [N,3] linear RGB in [0,1]
    texture_m: Tensor  # [N,3] position at rest, where procedural texture is looked up
    material: Tensor  # [N] int64, a Material
    gloss: Tensor  # [N] in [0,1]
    faces: Tensor  # [F,3] int64 into the vertices
    face_image: Tensor  # [F] int64, the image that the face belongs to
    face_part: Tensor  # [F] int64, see HAND_PARTS and OTHER_PART
    vertex_image: Tensor | None = None  # [N] int64, where known; see raster.vertex_images


def concatenate(meshes: Sequence[SceneMesh]) -> SceneMesh:
    """One mesh of several; face indices are shifted."""
    offsets = [0]
    for mesh in meshes:
        offsets.append(offsets[-1] + len(mesh.vertices_m))
    columns = {f.name: [getattr(m, f.name) for m in meshes] for f in fields(SceneMesh)}
    if any(image is None for image in columns['vertex_image']):
        del columns['vertex_image']
    values = {name: torch.cat(parts) for name, parts in columns.items()}
    values['faces'] = torch.cat([m.faces + o for m, o in zip(meshes, offsets, strict=False)])
    return SceneMesh(**values)
