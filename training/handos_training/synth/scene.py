"""One batch of scenes: who and what stands before each camera, as triangles and as hands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handos_training.synth.arm import ArmModel, ArmPose, PosedArms
from handos_training.synth.config import SynthConfig
from handos_training.synth.labels import HandsInScene
from handos_training.synth.mesh import HAND_PARTS, OTHER_PART, SceneMesh, concatenate
from handos_training.synth.placement import (
    ArmPoints,
    Placement,
    arm_spheres,
    camera_matrices,
    place_arms,
)
from handos_training.synth.pose import MAX_PENETRATION_M, PoseSampler, self_penetration
from handos_training.synth.sampling import Sampler
from handos_training.synth.skin import SkinPainter
from handos_training.synth.sleeves import Tailor, wardrobe
from handos_training.synth.surface import instances, skin_tones, vertex_normals

POSE_TRIES = 4


@dataclass
class Scene:
    """B images: their cameras [B,3,3], everything drawn, and the hands to label."""

    mesh: SceneMesh
    camera_matrices_px: Tensor
    hands: HandsInScene
    face_arm: Tensor  # [F] int64: slot of the hand whose bare skin a face is, else -1


class SceneBuilder:
    """Composes scenes from a configuration; everything random comes from the generator."""

    def __init__(self, config: SynthConfig, device: torch.device | str = 'cpu') -> None:
        self.config = config
        self.arm = ArmModel(device)
        self.poses = PoseSampler(device)
        self.painter = SkinPainter(self.arm)
        self.tailor = Tailor(self.arm)

    def __call__(self, count: int, generator: torch.Generator) -> Scene:
        sampler = Sampler(generator)
        cameras = camera_matrices(self.config, count, sampler)
        hands_per_image = 1 + sampler.choice(self.config.hand_counts, count)
        image = torch.repeat_interleave(
            torch.arange(count, device=cameras.device), hands_per_image
        )
        first = torch.cumsum(hands_per_image, 0) - hands_per_image
        slot = torch.arange(len(image), device=image.device) - first[image]
        is_left = sampler.coin(0.5, len(image))
        posed = self.arm.pose(self.arm_poses(len(image), sampler))
        placement = self.place(posed, image, slot, is_left, cameras, sampler)
        mesh, face_arm = self.draw_arms(posed, placement, image, slot, is_left, sampler)
        hands = HandsInScene(
            image, slot, is_left, placement(posed.hand_vertices_m), placement(posed.joints_m)
        )
        return Scene(mesh, cameras, hands, face_arm)

    def arm_poses(self, count: int, sampler: Sampler) -> ArmPose:
        """Shapes and poses; of a few tries the one whose fingers collide least."""
        angles = self.poses(count * POSE_TRIES, sampler)
        depth = self_penetration(self.arm.hand_joints(angles)).view(count, POSE_TRIES)
        good = depth < MAX_PENETRATION_M
        best = torch.where(good.any(1), good.int().argmax(1), depth.argmin(1))
        rows = torch.arange(count, device=angles.device)
        betas = sampler.normal(0.9, count, 10).clamp(-2.2, 2.2)
        small = sampler.coin(0.12, count)  # children
        return ArmPose(
            betas=betas,
            scale=torch.where(small, sampler.uniform(0.68, 0.9, count), 1.0),
            angles_deg=angles.view(count, POSE_TRIES, 16, 3)[rows, best],
            pronation_deg=sampler.uniform(-75, 75, count),
            elbow_deg=sampler.uniform(-35, 85, count),
        )

    def place(
        self,
        posed: PosedArms,
        image: Tensor,
        slot: Tensor,
        is_left: Tensor,
        cameras: Tensor,
        sampler: Sampler,
    ) -> Placement:
        """Stands for all arms, an image's first arm first, the others clear of those before."""
        N, device = len(image), image.device
        linear, offset = torch.zeros(N, 3, 3, device=device), torch.zeros(N, 3, device=device)
        far = torch.full((len(cameras), 1, 3), 1e3, device=device)
        for number in range(int(slot.max()) + 1):
            rows = (slot == number).nonzero().squeeze(1)
            points = ArmPoints(posed.joints_m[rows], posed.elbow_m[rows], posed.shoulder_m[rows])
            placed = place_arms(
                self.config, points, is_left[rows], cameras[image[rows]], far[image[rows]], sampler
            )
            linear[rows], offset[rows] = placed.linear, placed.offset_m
            spheres = arm_spheres(placed(points.joints_m), placed(points.elbow_m[:, None])[:, 0])
            taken = torch.full((len(cameras), spheres.shape[1], 3), 1e3, device=device)
            taken[image[rows]] = spheres
            far = torch.cat([far, taken], 1)
        return Placement(linear, offset)

    def draw_arms(
        self,
        posed: PosedArms,
        placement: Placement,
        image: Tensor,
        slot: Tensor,
        is_left: Tensor,
        sampler: Sampler,
    ) -> tuple[SceneMesh, Tensor]:
        """Skin and sleeves of all arms; an image's arms are mostly one person's."""
        N, images = len(image), int(image.max()) + 1
        normals = vertex_normals(posed.vertices_m, self.arm.faces)
        normals = normals @ placement.linear.transpose(1, 2)
        vertices = placement(posed.vertices_m)
        same = sampler.coin(0.8, N)
        tones = torch.where(
            same[:, None], skin_tones(images, sampler)[image], skin_tones(N, sampler)
        )
        outfits = torch.where(
            same[:, None, None], wardrobe(images, sampler)[image], wardrobe(N, sampler)
        )
        dressed = sampler.coin(self.config.sleeve_fraction, images)[image]
        dressed = torch.where(same, dressed, sampler.coin(self.config.sleeve_fraction, N))
        cuff = self.tailor.cuffs(dressed, sampler)
        albedo, gloss = self.painter(tones, sampler)
        first = 1 + HAND_PARTS * slot[:, None]
        part = torch.where(self.arm.face_bone >= 0, first + self.arm.face_bone, OTHER_PART)
        bare = self.tailor.bare_faces(cuff)
        skin = instances(
            vertices, normals, albedo, self.arm.v_template, self.painter.material, gloss,
            self.arm.faces, image, face_part=part, keep=bare, mirrored=is_left,
        )  # fmt: skip
        face_arm = slot[bare.nonzero()[:, 0]]
        sleeves = self.tailor(vertices, normals, cuff, outfits, image, is_left, sampler)
        nothing = torch.full((len(sleeves.faces),), -1, device=image.device)
        return concatenate([skin, sleeves]), torch.cat([face_arm, nothing])
