"""One batch of scenes: who and what stands before each camera, as triangles and as hands."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from handos_training.synth.config import SynthConfig
from handos_training.synth.people.arm import ArmModel, ArmPose, PosedArms
from handos_training.synth.people.body import BodyModel
from handos_training.synth.people.outfit import Dresser, Outfits
from handos_training.synth.people.placement import (
    ArmPoints,
    Placement,
    arm_spheres,
    camera_matrices,
    place_arms,
    touch_hands,
)
from handos_training.synth.people.pose import MAX_PENETRATION_M, PoseSampler, self_penetration
from handos_training.synth.people.posture import ACROSS, OWN_EYES, Reacher
from handos_training.synth.people.sleeves import Tailor, wardrobe
from handos_training.synth.render.mesh import SceneMesh, concatenate
from handos_training.synth.render.surface import skin_tones, vertex_normals
from handos_training.synth.sampling import Sampler
from handos_training.synth.scene.drawing import (
    Arms,
    Held,
    SkinDrawer,
    cull,
    draw_held,
    draw_occluders,
)
from handos_training.synth.scene.grasp import Grasper
from handos_training.synth.scene.labels import HandsInScene
from handos_training.synth.scene.objects import ObjectMaker

POSE_TRIES = 4


@dataclass
class Scene:
    """B images: their cameras [B,3,3], everything drawn, and the hands to label."""

    mesh: SceneMesh
    camera_matrices_px: Tensor
    up: Tensor  # [B,3] against gravity, in the camera's frame
    hands: HandsInScene
    face_arm: Tensor  # [F] int64: slot of the hand whose bare skin a face is, else -1


class SceneBuilder:
    """Composes scenes from a configuration; everything random comes from the generator."""

    def __init__(self, config: SynthConfig, device: torch.device | str = 'cpu') -> None:
        self.config = config
        self.arm = ArmModel(device)
        self.poses = PoseSampler(device)
        self.tailor = Tailor(self.arm)
        self.skin = SkinDrawer(self.arm, self.tailor)
        body = BodyModel(device)
        self.reacher = Reacher(self.arm, body)
        self.maker = ObjectMaker(device)
        self.grasper = Grasper(self.arm, self.maker)
        self.dresser = Dresser(body)

    def __call__(self, count: int, generator: torch.Generator) -> Scene:
        sampler = Sampler(generator)
        cameras = camera_matrices(self.config, count, sampler)
        up = cameras.new_tensor([0.0, -1.0, 0.0]).repeat(count, 1)
        has_person = sampler.coin(self.config.person_fraction, count)
        groups: list[Arms] = []
        meshes: list[SceneMesh] = []
        alone = (~has_person).nonzero().squeeze(1)
        alone = alone.repeat_interleave(1 + sampler.choice(self.config.hand_counts, len(alone)))
        peopled = has_person.nonzero().squeeze(1)
        second = peopled[sampler.coin(self.config.second_person_fraction, len(peopled))]
        people = torch.cat([peopled, second])
        poses, held = self.arm_poses(len(alone) + 2 * len(people), sampler)
        if len(alone):
            rows = slice(0, len(alone))
            arms, sleeves = self.lone_arms(alone, poses[rows], held[rows], cameras, sampler)
            groups.append(arms)
            meshes.append(sleeves)
        if len(people):
            rows = slice(len(alone), len(alone) + 2 * len(people))
            arms, bodies, person_up = self.people(
                people, len(peopled), poses[rows], held[rows], cameras, sampler
            )
            groups.append(arms)
            meshes.append(bodies)
            up[peopled] = person_up
        meshes += [draw_held(self.maker, arms, sampler) for arms in groups]
        skins, face_arms = zip(*(self.skin(arms, sampler) for arms in groups), strict=True)
        hands = [
            HandsInScene(
                arms.image,
                arms.slot,
                arms.is_left,
                arms.placement(arms.posed.hand_vertices_m),
                arms.placement(arms.posed.joints_m),
            )
            for arms in groups
        ]
        together = HandsInScene(
            **{
                f.name: torch.cat([getattr(h, f.name) for h in hands])
                for f in fields(HandsInScene)
            }
        )
        meshes.append(draw_occluders(self.config, self.maker, together, sampler))
        nothing = torch.full((sum(len(mesh.faces) for mesh in meshes),), -1, device=up.device)
        face_arm = torch.cat([*face_arms, nothing])
        mesh, face_arm = cull(self.config, concatenate([*skins, *meshes]), face_arm, cameras)
        return Scene(mesh, cameras, up, together, face_arm)

    def arm_poses(self, count: int, sampler: Sampler) -> tuple[ArmPose, Held]:
        """Shapes and poses, of a few tries the one whose fingers collide least; some hold."""
        angles = self.poses(count * POSE_TRIES, sampler)
        depth = self_penetration(self.arm.hand_joints(angles)).view(count, POSE_TRIES)
        good = depth < MAX_PENETRATION_M
        best = torch.where(good.any(1), good.int().argmax(1), depth.argmin(1))
        rows = torch.arange(count, device=angles.device)
        betas = sampler.normal(0.9, count, 10).clamp(-2.2, 2.2)
        small = sampler.coin(0.12, count)  # children
        pose = ArmPose(
            betas=betas,
            scale=torch.where(small, sampler.uniform(0.68, 0.9, count), 1.0),
            angles_deg=angles.view(count, POSE_TRIES, 16, 3)[rows, best],
            pronation_deg=sampler.uniform(-75, 75, count),
            elbow_deg=sampler.uniform(-35, 85, count),
        )
        rows = sampler.coin(self.config.object_fraction, count).nonzero().squeeze(1)
        grasps = self.grasper(pose.angles_deg[rows], betas[rows], sampler)
        pose.angles_deg[rows] = grasps.angles_deg
        return pose, Held(rows, grasps)

    def people(
        self,
        image: Tensor,
        images: int,
        poses: ArmPose,
        held: Held,
        cameras: Tensor,
        sampler: Sampler,
    ) -> tuple[Arms, SceneMesh, Tensor]:
        """Someone in `image` [P] each, its first `images` nearer; `up` [images,3] of those."""
        P = len(image)
        number = (torch.arange(P, device=image.device) >= images).long()
        framing = sampler.choice((0.76, 0.12, 0.12), P)
        framing = torch.where(number == 1, ACROSS, framing)
        people = self.reacher(self.config, image, framing, poses, cameras[image], sampler)
        headless = framing == OWN_EYES
        outfits = Outfits.sample(P, headless, sampler)
        tones = skin_tones(P, sampler)
        mesh = self.dresser(people.bodies, outfits, tones, people.view, image, sampler)
        slot = torch.cat([2 * number, 2 * number + 1])
        is_left = torch.arange(2 * P, device=image.device) >= P
        arms = Arms(
            people.arms, people.arm_placement, image.repeat(2), slot, is_left,
            tones.repeat(2, 1), outfits.cuff.repeat(2).clamp(min=0.03), poses, held,
        )  # fmt: skip
        return arms, mesh, people.view.linear[:images, :, 2]

    def lone_arms(
        self, image: Tensor, poses: ArmPose, held: Held, cameras: Tensor, sampler: Sampler
    ) -> tuple[Arms, SceneMesh]:
        """An arm in `image` [N] each, which names an image one to four times; and sleeves."""
        config, B, N = self.config, len(cameras), len(image)
        number = torch.arange(N, device=image.device)
        slot = number - torch.searchsorted(image, image)
        is_left = sampler.coin(0.5, N)
        touching = sampler.coin(config.touching_fraction, B)
        is_pair = touching[image] & (slot == 1)
        is_left = torch.where(is_pair, ~is_left.roll(1), is_left)  # two hands of one person
        posed = self.arm.pose(poses)
        placement = self.place(posed, image, slot, is_left, touching, cameras, sampler)
        same = (
            is_pair | (slot == 0) | sampler.coin(0.8, N)
        )  # an image's arms are mostly one person's
        tones = torch.where(same[:, None], skin_tones(B, sampler)[image], skin_tones(N, sampler))
        outfits = torch.where(
            same[:, None, None], wardrobe(B, sampler)[image], wardrobe(N, sampler)
        )
        dressed = sampler.coin(config.sleeve_fraction, B)[image]
        dressed = torch.where(same, dressed, sampler.coin(config.sleeve_fraction, N))
        cuff = self.tailor.cuffs(dressed, sampler)
        arms = Arms(posed, placement, image, slot, is_left, tones, cuff, poses, held)
        normals = vertex_normals(posed.vertices_m, self.arm.faces)
        normals = normals @ placement.linear.transpose(1, 2)
        vertices = placement(posed.vertices_m)
        sleeves = self.tailor(vertices, normals, cuff, outfits, image, is_left, sampler)
        return arms, sleeves

    def place(
        self,
        posed: PosedArms,
        image: Tensor,
        slot: Tensor,
        is_left: Tensor,
        touching: Tensor,
        cameras: Tensor,
        sampler: Sampler,
    ) -> Placement:
        """Stands for all arms, an image's first arm first, the others clear of those before.

        In images `touching` [B] the second hand touches the first.
        """
        N, device = len(image), image.device
        linear, offset = torch.zeros(N, 3, 3, device=device), torch.zeros(N, 3, device=device)
        taken = torch.full((len(cameras), 1, 3), 1e3, device=device)
        for number in range(int(slot.max()) + 1):
            rows = (slot == number).nonzero().squeeze(1)
            points = ArmPoints(posed.joints_m[rows], posed.elbow_m[rows], posed.shoulder_m[rows])
            own = image[rows]
            placed = place_arms(
                self.config, points, is_left[rows], cameras[own], taken[own], sampler
            )
            pairs = touching[own].nonzero().squeeze(1)
            if number == 1 and len(pairs):
                near = _select(points, pairs)
                mates = rows[pairs] - 1
                mate = Placement(linear[mates], offset[mates])
                others = ArmPoints(
                    mate(posed.joints_m[mates]),
                    mate(posed.elbow_m[mates][:, None])[:, 0],
                    mate(posed.shoulder_m[mates][:, None])[:, 0],
                )
                touch = touch_hands(
                    self.config, near, is_left[rows[pairs]], cameras[own[pairs]], others, sampler
                )
                placed.linear[pairs], placed.offset_m[pairs] = touch.linear, touch.offset_m
            linear[rows], offset[rows] = placed.linear, placed.offset_m
            elbow = placed(points.elbow_m[:, None])[:, 0]
            spheres = arm_spheres(placed(points.joints_m), elbow)
            new = torch.full((len(cameras), spheres.shape[1], 3), 1e3, device=device)
            new[own] = spheres
            taken = torch.cat([taken, new], 1)
        return Placement(linear, offset)


def _select(points: ArmPoints, rows: Tensor) -> ArmPoints:
    return ArmPoints(points.joints_m[rows], points.elbow_m[rows], points.shoulder_m[rows])
