"""Arms, what they hold and what hides them as triangles; and leaving out what nobody sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handos_training.synth.config import SynthConfig
from handos_training.synth.people.arm import ArmModel, ArmPose, PosedArms
from handos_training.synth.people.placement import Placement
from handos_training.synth.people.skin import SkinPainter
from handos_training.synth.people.sleeves import Tailor
from handos_training.synth.render.mesh import HAND_PARTS, OTHER_PART, SceneMesh
from handos_training.synth.render.pixels import take
from handos_training.synth.render.raster import vertex_images
from handos_training.synth.render.surface import instances, vertex_normals
from handos_training.synth.sampling import Sampler
from handos_training.synth.scene.grasp import Grasps
from handos_training.synth.scene.labels import HandsInScene
from handos_training.synth.scene.objects import ObjectMaker

CULL_MARGIN = 0.4  # parts of the image beyond its border in which faces stay, for shadows
BEHIND = 16  # bit of a vertex behind the camera; the lower ones name the image's sides


@dataclass
class Arms:
    """N arms in their images, and how they look."""

    posed: PosedArms
    placement: Placement
    image: Tensor
    slot: Tensor
    is_left: Tensor
    tones: Tensor  # [N,3]
    cuff: Tensor  # [N]
    pose: ArmPose
    held: Held


@dataclass
class Held:
    """Which of N arms hold something, and what."""

    rows: Tensor  # [M] into the arms
    grasps: Grasps  # of M hands

    def __getitem__(self, arms: slice) -> Held:
        inside = (self.rows >= arms.start) & (self.rows < arms.stop)
        return Held(self.rows[inside] - arms.start, self.grasps[inside])


class SkinDrawer:
    """Draws the bare skin of arms."""

    def __init__(self, arm: ArmModel, tailor: Tailor) -> None:
        self.arm = arm
        self.tailor = tailor
        self.painter = SkinPainter(arm)

    def __call__(self, arms: Arms, sampler: Sampler) -> tuple[SceneMesh, Tensor]:
        """The skin, and to whose hand each of its faces [F] belongs (its slot)."""
        normals = vertex_normals(arms.posed.vertices_m, self.arm.faces)
        normals = normals @ arms.placement.linear.transpose(1, 2)
        albedo, gloss = self.painter(arms.tones, sampler)
        first = 1 + HAND_PARTS * arms.slot[:, None]
        part = torch.where(self.arm.face_bone >= 0, first + self.arm.face_bone, OTHER_PART)
        bare = self.tailor.bare_faces(arms.cuff)
        skin = instances(
            arms.placement(arms.posed.vertices_m), normals, albedo, self.arm.v_template,
            self.painter.material, gloss, self.arm.faces, arms.image, face_part=part, keep=bare,
            mirrored=arms.is_left,
        )  # fmt: skip
        return skin, arms.slot[bare.nonzero()[:, 0]]


def draw_held(maker: ObjectMaker, arms: Arms, sampler: Sampler) -> SceneMesh:
    """What the arms' hands hold."""
    grasps = arms.held.grasps
    holds = grasps.holds.nonzero().squeeze(1)
    rows = arms.held.rows[holds]
    scale = arms.pose.scale[rows, None]
    things = grasps.things[holds]
    things.half_m = things.half_m * scale
    linear, offset = grasps.placement.linear[holds], grasps.placement.offset_m[holds] * scale
    turn = arms.placement.linear[rows]
    shift = (turn @ offset[..., None])[..., 0] + arms.placement.offset_m[rows]
    return maker.draw(things, Placement(turn @ linear, shift), arms.image[rows], sampler)


def draw_occluders(
    config: SynthConfig, maker: ObjectMaker, hands: HandsInScene, sampler: Sampler
) -> SceneMesh:
    """Things between the camera and some images' first hands, partly before them."""
    first = (hands.slot == 0) & sampler.coin(config.occluder_fraction, len(hands.slot))
    rows = first.nonzero().squeeze(1)
    M = len(rows)
    things = maker.sample(M, sampler)
    things.half_m = things.half_m * sampler.uniform(0.8, 1.6, M, 1)
    spot = hands.joints_m[rows, sampler.integers(21, M)]
    offset = (spot + sampler.normal(0.03, M, 3)) * sampler.uniform(0.7, 0.9, M, 1)
    nearest = hands.joints_m[rows, :, 2].amin(1) - 0.03 - things.half_m.amax(1)
    offset = offset * (nearest / offset[:, 2]).clamp(0.2, 1)[:, None]
    too_big = things.half_m.amax(1) / (0.25 * offset[:, 2].clamp(min=0.1))
    things.half_m = things.half_m / too_big.clamp(min=1)[:, None]
    placement = Placement(sampler.rotations(M), offset)
    return maker.draw(things, placement, hands.image[rows], sampler)


def cull(
    config: SynthConfig, mesh: SceneMesh, face_arm: Tensor, cameras: Tensor
) -> tuple[SceneMesh, Tensor]:
    """Leave out faces that are behind the camera or so far aside that no shadow matters.

    A face may go where all its corners lie beyond one plane (Cohen and Sutherland's outcodes).
    """
    image = vertex_images(mesh)
    focal, *centres = take(cameras[:, [0, 0, 1], [0, 2, 2]], image)
    x, y, z = mesh.vertices_m.T.contiguous()
    outside = (z < 0.02).byte().mul_(BEHIND)
    for bit, position, centre, size in (
        (1, x, centres[0], config.width),
        (4, y, centres[1], config.height),
    ):
        low, high = -CULL_MARGIN * size, (1 + CULL_MARGIN) * size
        projected = (focal * position).addcmul_(centre, z)
        outside |= (projected < low * z).byte().mul_(bit)
        outside |= (projected > high * z).byte().mul_(2 * bit)
    a, b, c = outside.index_select(0, mesh.faces.flatten()).view(-1, 3).unbind(1)
    kept = ((a & b & c) == 0).nonzero().squeeze(1)
    return _compact(mesh, image, kept), face_arm.index_select(0, kept)


def _compact(mesh: SceneMesh, image: Tensor, kept: Tensor) -> SceneMesh:
    """The faces `kept` [F] with the vertices that they use, in `image` [N]."""
    corners = mesh.faces.index_select(0, kept).flatten()
    used = torch.zeros_like(image, dtype=torch.bool).index_fill_(0, corners, True)
    vertex = used.nonzero().squeeze(1)
    number = used.cumsum(0) - 1
    return SceneMesh(
        vertices_m=mesh.vertices_m.index_select(0, vertex),
        normals=mesh.normals.index_select(0, vertex),
        albedo=mesh.albedo.index_select(0, vertex),
        texture_m=mesh.texture_m.index_select(0, vertex),
        material=mesh.material.index_select(0, vertex),
        gloss=mesh.gloss.index_select(0, vertex),
        faces=number.index_select(0, corners).view(-1, 3),
        face_image=mesh.face_image.index_select(0, kept),
        face_part=mesh.face_part.index_select(0, kept),
        vertex_image=image.index_select(0, vertex),
    )
