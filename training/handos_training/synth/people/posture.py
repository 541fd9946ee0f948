"""People before a camera: posture, framing, and arms that reach where hands are wanted.

An arm is sought for like a hand in a photograph is framed: many reaches are drawn (where the wrist
goes, where the elbow points, how the forearm and the wrist turn), and the one is taken that keeps
the hand in view, faces the camera as wanted and stays out of the body. Left arms are sought in the
mirrored body.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from handos_training.synth.config import SynthConfig
from handos_training.synth.people.arm import ArmModel, ArmPose, PosedArms
from handos_training.synth.people.body import (
    CHEST,
    FOREARM,
    HEAD,
    LEFT,
    NECK,
    RIGHT,
    THIGH,
    UPPER_ARM,
    WRIST,
    BodyModel,
    PosedBodies,
    Posture,
    bend_direction,
)
from handos_training.synth.people.placement import Placement, project
from handos_training.synth.sampling import Sampler, axis_angle_matrix, frame_matrix

REACHES = 64
RAISED, CHEST_HIGH, TO_CAMERA, AT_FACE, RESTING = range(5)  # what a hand does
FRONT, ACROSS, OWN_EYES = range(3)  # how a person is framed: near, across a room, egocentric
# Boxes of wrists relative to the base of the neck, right hand, metres of an adult: low, high.
WRIST_BOXES_M = (
    ((-0.58, -0.52, -0.28), (-0.06, -0.14, 0.26)),
    ((-0.36, -0.50, -0.46), (0.12, -0.20, -0.12)),
    ((-0.40, -0.70, -0.30), (0.05, -0.40, 0.12)),
    ((-0.24, -0.28, -0.08), (0.02, -0.13, 0.14)),
    ((-0.36, -0.34, -0.66), (-0.12, 0.06, -0.42)),
)
# Spheres that fill a trunk: x, y, z, radius; head and thighs are added at their joints.
TRUNK_M = (
    (-0.10, 0.01, -0.13, 0.115), (0.0, 0.0, -0.13, 0.12), (0.10, 0.01, -0.13, 0.115),
    (-0.07, 0.0, -0.32, 0.125), (0.07, 0.0, -0.32, 0.125), (-0.08, 0.01, -0.52, 0.135),
    (0.08, 0.01, -0.52, 0.135), (0.0, -0.01, 0.03, 0.062),
)  # fmt: skip


@dataclass
class People:
    """P people and their 2 P arms (the right arms first), placed before their images' cameras."""

    image: Tensor  # [P]
    framing: Tensor  # [P]
    bodies: PosedBodies
    posture: Posture
    view: Placement  # [P], body frame to camera
    arms: PosedArms  # [2P], as right arms
    arm_placement: Placement  # [2P], hand frame to camera


def sample_posture(framing: Tensor, sampler: Sampler) -> Posture:
    """People who look more or less ahead, near ones often sit; one in ten is a child."""
    count = len(framing)
    sitting = ((framing != ACROSS) & sampler.coin(0.6, count))[:, None]
    child = sampler.coin(0.1, count)
    spread = sampler.normal(1, count, 3)
    trunk = torch.tensor([6.0, 4.0, 9.0], device=sampler.device)
    head = torch.tensor([10.0, 6.0, 18.0], device=sampler.device)
    return Posture(
        shapes=sampler.normal(0.9, count, 10).clamp(-2.2, 2.2),
        scale=torch.where(
            child, sampler.uniform(0.65, 0.9, count), sampler.uniform(0.93, 1.06, count)
        ),
        chest_deg=spread * trunk,
        head_deg=sampler.normal(1, count, 3) * head,
        thigh_deg=torch.where(
            sitting, sampler.uniform(70, 95, count, 2), sampler.normal(6, count, 2)
        ),
        shin_deg=torch.where(
            sitting, sampler.uniform(60, 100, count, 2), sampler.uniform(0, 12, count, 2)
        ),
        spread_deg=sampler.uniform(0, 12, count, 2),
    )


def frame_people(
    config: SynthConfig, bodies: PosedBodies, framing: Tensor, cameras: Tensor, sampler: Sampler
) -> Placement:
    """Where the camera is: body frame to camera frame, so that the framing is as asked [P]."""
    P = len(framing)
    focal_px = cameras[:, 0, 0]
    side_px = min(config.height, config.width)
    shoulders_m = (bodies.joint(UPPER_ARM, CHEST) - bodies.joint(UPPER_ARM + LEFT, CHEST)).norm(
        dim=-1
    )
    part = torch.where(
        framing == FRONT, sampler.log_uniform(0.3, 0.95, P), sampler.log_uniform(0.12, 0.3, P)
    )
    distance = (focal_px * shoulders_m / (part * side_px)).clamp(0.42, 6)
    yaw = sampler.normal(0.35, P)
    yaw = torch.where(sampler.coin(0.08, P), sampler.uniform(-torch.pi, torch.pi, P), yaw)
    elevation = sampler.normal(0.16, P) + 0.03
    towards = torch.stack([yaw.sin(), -yaw.cos(), elevation], -1)
    head = bodies.joint(HEAD, HEAD)
    target = head + torch.stack(
        [
            sampler.normal(0.12, P),
            torch.zeros(P, device=head.device),
            sampler.normal(0.10, P) - 0.12,
        ],
        -1,
    )
    target = torch.where(
        (framing == ACROSS)[:, None], target - target.new_tensor([0, 0, 0.3]), target
    )
    eye = target + distance[:, None] * normalize(towards, dim=-1)
    # Egocentric: from between the eyes, ahead and down.
    own = (framing == OWN_EYES)[:, None]
    eyes = bodies.joint(16, HEAD) / 2 + bodies.joint(17, HEAD) / 2
    down = sampler.uniform(0.35, 1.15, P)
    ahead = torch.stack([sampler.normal(0.15, P), -down.cos(), -down.sin()], -1)
    eye = torch.where(own, eyes + eyes.new_tensor([0, -0.04, 0.02]), eye)
    forward = torch.where(own, normalize(ahead, dim=-1), normalize(target - eye, dim=-1))
    up = torch.tensor([0.0, 0.0, 1.0], device=head.device).expand(P, 3)
    right = normalize(torch.linalg.cross(forward, up), dim=-1)
    rows = torch.stack([right, torch.linalg.cross(forward, right), forward], 1)
    roll = axis_angle_matrix(rows.new_tensor([0, 0, 1]).expand(P, 3), sampler.normal(0.07, P))
    rows = roll @ rows
    return Placement(rows, -(rows @ eye[..., None])[..., 0])


def body_spheres(bodies: PosedBodies, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Centres [P,S,3] and radii [P,S] of spheres that hands must stay out of."""
    trunk = torch.tensor(TRUNK_M, device=scale.device) * scale[:, None, None]
    chest, neck = bodies.bones[:, CHEST], bodies.bones[:, NECK]
    base = (neck[:, :, :3] @ bodies.rest_joints_m[:, NECK, :, None])[..., 0] + neck[..., 3]
    centres = trunk[..., :3] @ chest[:, :, :3].transpose(1, 2) + base[:, None]
    head = bodies.joint(16, HEAD) / 2 + bodies.joint(17, HEAD) / 2
    head = head + scale[:, None] * head.new_tensor([0, 0.085, 0.02])
    thighs = []
    for side in (RIGHT, LEFT):
        hip = bodies.joint(THIGH + side, THIGH + side)
        knee = bodies.joint(THIGH + 2 + side, THIGH + side)
        thighs += [hip + t * (knee - hip) for t in (0.2, 0.5, 0.8)]
    centres = torch.cat([centres, head[:, None], torch.stack(thighs, 1)], 1)
    radii = torch.cat(
        [trunk[..., 3], 0.105 * scale[:, None], (0.085 * scale[:, None]).expand(-1, 6)], 1
    )
    return centres, radii


class Reacher:
    """Finds arms for people."""

    def __init__(self, arm: ArmModel, body: BodyModel) -> None:
        self.arm = arm
        self.body = body

    def __call__(
        self,
        config: SynthConfig,
        image: Tensor,
        framing: Tensor,
        poses: ArmPose,
        cameras_px: Tensor,
        sampler: Sampler,
    ) -> People:
        """People in the images [P], `cameras_px` [P,3,3]; `poses` [2P] bring fingers, shapes."""
        posture = sample_posture(framing, sampler)
        bodies = self.body.pose(posture)
        view = frame_people(config, bodies, framing, cameras_px, sampler)
        activity = self._activities(framing, sampler)
        centres, radii = body_spheres(bodies, posture.scale)
        mirror = torch.tensor([-1.0, 1, 1], device=image.device)

        def both(right: Tensor, left: Tensor | None = None) -> Tensor:
            return torch.cat([right, (right if left is None else left) * mirror])

        shoulder = both(bodies.joint(UPPER_ARM, CHEST), bodies.joint(UPPER_ARM + LEFT, CHEST))
        rest = bodies.rest_joints_m
        length = (rest[:, FOREARM] - rest[:, UPPER_ARM]).norm(dim=-1)
        length = length + (rest[:, WRIST] - rest[:, FOREARM]).norm(dim=-1)
        _, pivots = self.arm.rest(poses.betas)
        poses.scale = length.repeat(2) / self.arm.length(pivots)
        reach = _Reach(
            shoulder_m=shoulder,
            obstacles_m=both(centres),
            radii_m=radii.repeat(2, 1),
            scale=posture.scale.repeat(2),
            # The camera's view of the mirrored body is that of a left arm.
            linear=torch.cat([view.linear, view.linear * mirror]),
            offset_m=view.offset_m.repeat(2, 1),
            cameras_px=cameras_px.repeat(2, 1, 1),
            framing=framing.repeat(2),
        )
        linear, offset = self._search(config, reach, activity, poses, pivots, sampler)
        arms = self.arm.pose(poses)
        in_body = Placement(linear, offset)
        for side in (RIGHT, LEFT):
            rows = slice(side * len(image), (side + 1) * len(image))
            ends = torch.stack([arms.elbow_m, arms.joints_m[:, 0]], 1)
            elbow, wrist = in_body(ends)[rows].unbind(1)
            flip = mirror if side == LEFT else 1.0
            self.body.reach(bodies, side, elbow * flip, wrist * flip)
        placement = Placement(
            reach.linear @ linear, (reach.linear @ offset[..., None])[..., 0] + reach.offset_m
        )
        return People(image, framing, bodies, posture, view, arms, placement)

    def _activities(self, framing: Tensor, sampler: Sampler) -> Tensor:
        """What each of the 2 P hands does; most people show one hand and rest the other."""
        P = len(framing)
        active = (0.5, 0.16, 0.14, 0.14, 0.06)
        shown = sampler.choice(active, P)
        other = torch.where(sampler.coin(0.5, P), RESTING, sampler.choice(active, P))
        swap = sampler.coin(0.5, P)
        both = torch.cat([torch.where(swap, other, shown), torch.where(swap, shown, other)])
        forward = torch.where(sampler.coin(0.75, 2 * P), CHEST_HIGH, RAISED)
        return torch.where(framing.repeat(2) == OWN_EYES, forward, both)

    def _search(
        self,
        config: SynthConfig,
        reach: _Reach,
        activity: Tensor,
        poses: ArmPose,
        pivots: Tensor,
        sampler: Sampler,
    ) -> tuple[Tensor, Tensor]:
        """Hand to body frame, linear [N,3,3] and offset [N,3]; sets the poses' arm angles."""
        N, T, device = len(activity), REACHES, activity.device
        boxes = torch.tensor(WRIST_BOXES_M, device=device)[activity] * reach.scale[:, None, None]
        low, high = boxes[:, None].unbind(2)
        wrist = low + (high - low) * sampler.uniform(0, 1, N, T, 3)
        upper, lower = self.arm.segment_lengths(pivots)
        upper, lower = (value * poses.scale for value in (upper, lower))
        span = wrist - reach.shoulder_m[:, None]
        most = (upper + lower)[:, None]
        distance = span.norm(dim=-1).clamp(0.42 * most, 0.985 * most)
        along = normalize(span, dim=-1)
        wrist = reach.shoulder_m[:, None] + along * distance[..., None]
        squares = upper.square() + lower.square()
        cosine = (squares[:, None] - distance.square()) / (2 * upper * lower)[:, None]
        bend = self.arm.rest_elbow_deg(pivots)[:, None] - cosine.clamp(-1, 1).acos().rad2deg()
        wrist_deg = torch.stack([sampler.normal(20, N, T), sampler.normal(8, N, T) - 3], -1)
        pronation = sampler.uniform(-85, 85, N, T)
        elbow, shoulder = self.arm.elbow_and_shoulder(
            pivots.repeat_interleave(T, 0),
            wrist_deg.flatten(0, 1),
            pronation.flatten(),
            bend.flatten(),
        )
        elbow, shoulder = (v.view(N, T, 3) * poses.scale[:, None, None] for v in (elbow, shoulder))
        # Turn the arm so that its shoulder is at the body's and its elbow points down and out.
        out = torch.tensor([-0.55, 0.25, -0.8], device=device).expand(N, T, 3)
        swing = axis_angle_matrix(along, sampler.normal(0.45, N, T))
        out = (swing @ out[..., None])[..., 0]
        here = frame_matrix(shoulder, bend_direction(shoulder, elbow, torch.zeros_like(elbow)))
        there = frame_matrix(-along, out)
        linear = there @ here.transpose(2, 3)
        cost = self._cost(config, reach, activity, poses, wrist, linear, elbow, sampler)
        best = cost.argmin(1)
        rows = torch.arange(N, device=device)
        poses.angles_deg[:, 0, :2] = wrist_deg[rows, best]
        poses.pronation_deg = pronation[rows, best]
        poses.elbow_deg = bend[rows, best]
        return linear[rows, best], wrist[rows, best]

    def _cost(
        self,
        config: SynthConfig,
        reach: _Reach,
        activity: Tensor,
        poses: ArmPose,
        wrist: Tensor,
        linear: Tensor,
        elbow: Tensor,
        sampler: Sampler,
    ) -> Tensor:
        """How bad each reach is, [N,T]."""
        N, T = wrist.shape[:2]
        joints = self.arm.hand_joints(poses.angles_deg) * poses.scale[:, None, None]
        hand = torch.einsum('ntij,npj->ntpi', linear, joints) + wrist[:, :, None]
        elbow = (linear @ elbow[..., None])[..., 0] + wrist
        steps = torch.linspace(0.15, 0.85, 4, device=wrist.device)[:, None]
        forearm = wrist[:, :, None] + steps * (elbow - wrist)[:, :, None]
        points = torch.cat([hand[:, :, [4, 5, 8, 9, 12, 16, 17, 20]], forearm], 2)
        gap = torch.cdist(points.flatten(1, 2), reach.obstacles_m) - reach.radii_m[:, None]
        own = gap.new_tensor([0.012, 0.025] + [0.012, 0.03] + [0.012] * 4 + [0.04] * 4)
        inside = (own[:, None] - gap.view(N, T, len(own), -1)).clamp(min=0).amax(-1).sum(-1)

        seen = torch.einsum('nij,ntpj->ntpi', reach.linear, hand) + reach.offset_m[:, None, None]
        cameras = reach.cameras_px[:, None].expand(N, T, 3, 3).flatten(0, 1)
        size = torch.tensor([config.width, config.height], device=wrist.device)
        pixels = project(seen.flatten(0, 1), cameras).view(N, T, -1, 2)
        out = ((pixels / size - 0.5).abs().amax(-1) > 0.49) | (seen[..., 2] < 0.15)
        hidden = torch.where((activity == RESTING)[:, None], 0.0, out.float().mean(-1))

        frame = reach.linear[:, None] @ linear
        fingers_up = -frame[..., 1, 0]
        towards = -normalize(seen.mean(2), dim=-1)
        palm = -(frame[..., 2] * towards).sum(-1)  # 1: palm to the camera, -1: back
        wanted = torch.where(sampler.coin(0.62, N, 1), 1.0, -1.0)
        any_way = (activity >= RESTING)[:, None] | sampler.coin(0.25, N, 1)
        any_way |= (reach.framing == OWN_EYES)[:, None]
        facing = torch.where(any_way, 0.0, (1 - wanted * palm) + 0.8 * (1 - fingers_up))
        high = (elbow[..., 2] - reach.shoulder_m[:, None, 2] - 0.02).clamp(min=0)
        near = (0.25 - seen[..., 2].amin(-1)).clamp(min=0)
        return (
            60 * inside + 4 * hidden + facing + 5 * high + 40 * near
            + sampler.uniform(0, 0.35, N, T)
        )  # fmt: skip


@dataclass
class _Reach:
    """What an arm's search knows of its body, as if every arm were a right one."""

    shoulder_m: Tensor  # [N,3]
    obstacles_m: Tensor  # [N,S,3]
    radii_m: Tensor  # [N,S]
    scale: Tensor  # [N]
    linear: Tensor  # [N,3,3], body to camera
    offset_m: Tensor  # [N,3]
    cameras_px: Tensor  # [N,3,3]
    framing: Tensor  # [N]
