"""Where arms stand before the camera: upright as before a webcam, egocentric, or any way round.

A hand's own frame is that of the hand model: x along the hand, y to the thumb's side, z out of its
back. Everything is placed as a right hand; a left one is the scene mirrored at the camera's y-z
plane, so both sides see the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from handos_training.synth.config import SynthConfig
from handos_training.synth.people.pose import finger_capsules, segment_distance
from handos_training.synth.sampling import Sampler, axis_angle_matrix, frame_matrix

CANDIDATES = 24
ARM_SPHERES = 6  # a hand, then points down to the elbow, approximate an arm in collision checks
SPHERE_RADIUS_M = 0.055


@dataclass
class ArmPoints:
    """What of a posed arm decides where it may stand, in the hand's own frame."""

    joints_m: Tensor  # [N,21,3]
    elbow_m: Tensor  # [N,3]
    shoulder_m: Tensor  # [N,3]


@dataclass
class Placement:
    """x_camera = linear x_hand + offset_m; `linear` is a rotation, or a reflection if left."""

    linear: Tensor  # [N,3,3]
    offset_m: Tensor  # [N,3]

    def __call__(self, points_m: Tensor) -> Tensor:
        """Points [N,P,3] of the hand's frame in the camera's."""
        return points_m @ self.linear.transpose(1, 2) + self.offset_m[:, None]


def camera_matrices(config: SynthConfig, count: int, sampler: Sampler) -> Tensor:
    """Pinhole cameras [count,3,3] whose longer side spans a random field of view."""
    low, high = config.field_of_view_deg
    half_angle = torch.deg2rad(sampler.uniform(low, high, count)) / 2
    focal_px = max(config.width, config.height) / 2 / half_angle.tan()
    matrices = torch.zeros(count, 3, 3, device=sampler.device)
    matrices[:, 0, 0] = matrices[:, 1, 1] = focal_px
    centre = torch.tensor([config.width - 1, config.height - 1], device=sampler.device) / 2
    size = torch.tensor([config.width, config.height], device=sampler.device)
    matrices[:, :2, 2] = centre + sampler.normal(0.01, count, 2) * size
    matrices[:, 2, 2] = 1
    return matrices


def project(points_m: Tensor, camera_matrices_px: Tensor) -> Tensor:
    """Pixels [N,P,2] of camera-frame points [N,P,3] through cameras [N,3,3]."""
    homogeneous = points_m @ camera_matrices_px.transpose(1, 2)
    return homogeneous[..., :2] / homogeneous[..., 2:].clamp(min=1e-3)


def hand_orientations(config: SynthConfig, count: int, sampler: Sampler) -> Tensor:
    """Rotations [count,3,3] from the hand's frame to the camera's (x right, y down, z forward)."""
    free = 1 - config.upright_fraction - config.egocentric_fraction
    kind = sampler.choice((config.upright_fraction, config.egocentric_fraction, free), count)

    # Upright: fingers up, tilted in the image, leaning to or from the camera; any face to it,
    # palms and backs more often than edges.
    tilt, lean = sampler.normal(0.5, count), sampler.normal(0.45, count)
    distal = torch.stack([tilt.sin() * lean.cos(), -tilt.cos() * lean.cos(), lean.sin()], -1)
    away = torch.tensor([0.0, 0.0, 1.0], device=sampler.device).expand(count, 3)
    upright = frame_matrix(distal, torch.linalg.cross(away, distal))  # its back looks away or here
    facing = torch.where(sampler.coin(0.6, count), 0.0, torch.pi) + sampler.normal(0.55, count)
    facing = torch.where(
        sampler.coin(0.25, count), sampler.uniform(-torch.pi, torch.pi, count), facing
    )
    upright = upright @ axis_angle_matrix(
        torch.tensor([1.0, 0, 0], device=sampler.device).expand(count, 3), facing
    )

    # Egocentric: the arm comes from below and reaches forwards, most often back of the hand up.
    tilt, reach = sampler.normal(0.45, count), sampler.uniform(0.15, 1.25, count)
    distal = torch.stack([tilt.sin() - 0.25, -reach.cos(), reach.sin()], -1)
    upwards = torch.tensor([0.0, -1.0, -0.6], device=sampler.device).expand(count, 3)
    egocentric = frame_matrix(normalize(distal, dim=-1), torch.linalg.cross(upwards, distal))
    roll = sampler.normal(0.7, count) + torch.where(sampler.coin(0.2, count), torch.pi, 0.5)
    egocentric = egocentric @ axis_angle_matrix(
        torch.tensor([1.0, 0, 0], device=sampler.device).expand(count, 3), roll
    )
    rotations = torch.where((kind == 0)[:, None, None], upright, sampler.rotations(count))
    return torch.where((kind == 1)[:, None, None], egocentric, rotations)


def arm_spheres(joints_m: Tensor, elbow_m: Tensor) -> Tensor:
    """Sphere centres [...,S,3] that stand for a hand and its forearm."""
    hand = torch.stack([joints_m[..., 9, :], joints_m[..., [8, 12, 16, 20], :].mean(-2)], -2)
    steps = torch.linspace(0, 1, ARM_SPHERES - 2, device=joints_m.device)[:, None]
    wrist = joints_m[..., :1, :]
    return torch.cat([hand, wrist + steps * (elbow_m[..., None, :] - wrist)], -2)


def place_arms(
    config: SynthConfig,
    points: ArmPoints,
    is_left: Tensor,
    camera_matrices_px: Tensor,
    obstacles_m: Tensor,
    sampler: Sampler,
) -> Placement:
    """The best of random stands for one arm an image, N images.

    Good stands keep most of the hand in the image and the arm out of the lens, let the arm leave
    the image before its shoulder ends, and keep clear of `obstacles_m` [N,O,3] (spheres, as
    `arm_spheres` gives them; far away where there is none).
    """
    N, T = len(is_left), CANDIDATES
    linear = _orientations(config, is_left, sampler)

    def turned(values: Tensor) -> Tensor:
        return torch.einsum('ntij,npj->ntpi', linear, values)

    joints = turned(points.joints_m)
    extent_m = (joints.amax(2) - joints.amin(2))[..., :2].amax(-1) + 0.02
    side_px = sampler.log_uniform(*config.hand_size, N, T) * min(config.height, config.width)
    focal_px = camera_matrices_px[:, 0, 0, None]
    depth_m = focal_px * extent_m / side_px
    size = torch.tensor([config.width, config.height], device=is_left.device)
    room = 1 - 0.6 * side_px[..., None] / size  # of the image, for the hand's centre
    centre_px = (0.5 + room.clamp(min=0.25) * sampler.uniform(-0.5, 0.5, N, T, 2)) * size
    ray = (centre_px - camera_matrices_px[:, None, :2, 2]) / focal_px[..., None]
    centre_m = torch.cat([ray * depth_m[..., None], depth_m[..., None]], -1)
    offset = centre_m - (joints.amax(2) + joints.amin(2)) / 2
    cost = _stand_cost(config, points, linear, offset, camera_matrices_px)
    spheres = arm_spheres(
        joints + offset[:, :, None], turned(points.elbow_m[:, None])[:, :, 0] + offset
    )
    gap = torch.cdist(spheres.flatten(1, 2), obstacles_m).view(N, T, -1).amin(-1)
    cost = cost + 3.0 * (gap < 2 * SPHERE_RADIUS_M) + sampler.uniform(0, 0.2, N, T)
    return _best(linear, offset, cost)


def touch_hands(
    config: SynthConfig,
    points: ArmPoints,
    is_left: Tensor,
    camera_matrices_px: Tensor,
    other: ArmPoints,
    sampler: Sampler,
) -> Placement:
    """Stands for one arm an image that touches the `other`, which is in the camera's frame.

    From a random side the hand moves towards the other by the gap between them (conservative
    advancement), so it stops at its skin.
    """
    N, T = len(is_left), CANDIDATES
    linear = _orientations(config, is_left, sampler)
    joints = torch.einsum('ntij,npj->ntpi', linear, points.joints_m)
    elbow = torch.einsum('ntij,nj->nti', linear, points.elbow_m)
    side = torch.nn.functional.normalize(sampler.normal(1, N, T, 3), dim=-1)
    spot = sampler.integers(21, N, T)
    target = other.joints_m.gather(1, spot[..., None].expand(N, T, 3))
    start = target - joints.mean(2) + 0.35 * side
    starts, ends, radii = arm_capsules(joints.flatten(0, 1), elbow.flatten(0, 1))
    starts, ends = starts.view(N, T, -1, 1, 3), ends.view(N, T, -1, 1, 3)
    other_starts, other_ends, _ = arm_capsules(other.joints_m, other.elbow_m)
    other_starts, other_ends = other_starts[:, None, None], other_ends[:, None, None]
    moved = torch.zeros(N, T, device=is_left.device)
    for _ in range(12):
        shift = (start - moved[..., None] * side)[:, :, None, None]
        distance = segment_distance(starts + shift, ends + shift, other_starts, other_ends)
        gap = (distance - radii[:, None] - radii).amin((2, 3))
        moved = moved + gap.clamp(min=0)
    offset = start - moved[..., None] * side
    cost = _stand_cost(config, points, linear, offset, camera_matrices_px)
    missed = (moved > 0.42) | (gap > 0.004) | (gap < -0.003)
    return _best(linear, offset, cost + 10.0 * missed + sampler.uniform(0, 0.5, N, T))


def arm_capsules(joints_m: Tensor, elbow_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fingers, palm and forearm as capsules: starts, ends [N,21,3] and radii [21]."""
    starts, ends, radii = finger_capsules(joints_m)
    wrist, palm = joints_m[:, :1], joints_m[:, [1, 5, 9, 13, 17]]
    starts = torch.cat([starts, wrist.expand_as(palm), wrist], 1)
    ends = torch.cat([ends, palm, elbow_m[:, None]], 1)
    return starts, ends, torch.cat([radii, radii.new_tensor([0.012] * 5 + [0.028])])


def _orientations(config: SynthConfig, is_left: Tensor, sampler: Sampler) -> Tensor:
    """Hand to camera [N,T,3,3]; reflections for left hands."""
    N, T = len(is_left), CANDIDATES
    linear = hand_orientations(config, N * T, sampler).view(N, T, 3, 3)
    mirror = torch.where(is_left[:, None], torch.tensor([-1.0, 1, 1], device=is_left.device), 1.0)
    return mirror[:, None, :, None] * linear


def _best(linear: Tensor, offset: Tensor, cost: Tensor) -> Placement:
    best, rows = cost.argmin(1), torch.arange(len(cost), device=cost.device)
    return Placement(linear[rows, best], offset[rows, best])


def _stand_cost(
    config: SynthConfig,
    points: ArmPoints,
    linear: Tensor,
    offset: Tensor,
    camera_matrices_px: Tensor,
) -> Tensor:
    """How bad each stand is [N,T], but for what stands in its way."""
    N, T = linear.shape[:2]

    def placed(values: Tensor) -> Tensor:
        return torch.einsum('ntij,npj->ntpi', linear, values) + offset[:, :, None]

    joints = placed(points.joints_m)
    elbow, shoulder = placed(points.elbow_m[:, None]), placed(points.shoulder_m[:, None])
    cameras = camera_matrices_px[:, None].expand(N, T, 3, 3).flatten(0, 1)
    size = torch.tensor([config.width, config.height], device=linear.device)

    def outside(values: Tensor, margin: float) -> Tensor:
        """How far [N,T,P] points are out of the image, in parts of its size (negative inside)."""
        pixels = project(values.flatten(0, 1), cameras).view(N, T, -1, 2)
        distance = ((pixels + 0.5) / size - 0.5).abs().amax(-1) - 0.5 - margin
        return torch.where(values[..., 2] < 0.03, 1.0, distance)

    inside = (outside(joints, 0) < 0).float().mean(-1)
    steps = torch.linspace(0.15, 1, 6, device=linear.device)[:, None]
    wrist = joints[:, :, :1]
    along = torch.cat([wrist + steps * (elbow - wrist), elbow + steps * (shoulder - elbow)], 2)
    in_lens = ((along[..., 2] < 0.14) & (outside(along, 0.12) < 0)).any(-1)
    covers = (along[:, :, :6, 2] < joints[..., 2].amin(-1, keepdim=True) - 0.05).any(-1)
    focal_px = camera_matrices_px[:, :1, 0]
    radius = 0.08 * focal_px / shoulder[..., 0, 2].clamp(min=0.05) / size.min()
    ends_in_view = outside(shoulder, 0)[..., 0] < radius.clamp(max=0.4)
    too_near = joints[..., 2].amin(-1) < 0.12
    hidden = 2.0 * (0.85 - inside).clamp(min=0)
    return 8.0 * too_near + 6.0 * in_lens + 4.0 * ends_in_view + hidden + 0.7 * covers
