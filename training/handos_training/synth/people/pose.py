"""Random hand poses: angles within limits, coupled as tendons do it, fingers not colliding."""

from __future__ import annotations

import torch
from torch import Tensor

from handos_model.hand.pose_limits import (
    ABDUCTION,
    FINGERS,
    FLEXION,
    INDEX,
    LIMITS_DEG,
    LITTLE,
    MIDDLE,
    RING,
    THUMB,
    TWIST,
    WRIST,
)
from handos_training.synth.people.pose_table import HAND_SHAPES, HandShape
from handos_training.synth.sampling import Sampler, axis_angle_matrix

CHAINS = (THUMB, INDEX, MIDDLE, RING, LITTLE)  # side by side, as the 21 joints are ordered
FINGER_RADII_M = ((0.0110, 0.0095, 0.0085), (0.0085, 0.0077, 0.0070), (0.0085, 0.0078, 0.0070),
                  (0.0080, 0.0072, 0.0066), (0.0070, 0.0063, 0.0058))  # fmt: skip
MAX_PENETRATION_M = 0.0035


def shape_angles_deg(shape: HandShape) -> Tensor:
    """One row of the table as angles [16,3] in MANO's joint order."""
    angles = torch.zeros(16, 3)
    angles[THUMB, FLEXION], angles[THUMB, ABDUCTION] = shape.thumb[0], shape.thumb[1]
    angles[THUMB + 1, FLEXION], angles[THUMB + 2, FLEXION] = shape.thumb[2], shape.thumb[3]
    for finger, curl, spread in zip(FINGERS, shape.curls, shape.spread, strict=True):
        angles[finger : finger + 3, FLEXION] = torch.tensor(curl)
        angles[finger, ABDUCTION] = spread
    return angles


def couple(angles_deg: Tensor) -> Tensor:
    """`handos_model.hand.pose_limits.couple` for tensors [...,16,3]."""
    low, high = torch.tensor(LIMITS_DEG, dtype=angles_deg.dtype, device=angles_deg.device).unbind(
        -1
    )
    angles = angles_deg.clamp(low, high)
    flexion, abduction, twist = (a.clone() for a in angles.unbind(-1))
    for finger, neighbour in zip(FINGERS[1:], FINGERS[:-1], strict=True):
        difference = (flexion[..., finger] - flexion[..., neighbour]).clamp(-95, 95)
        flexion[..., finger] = flexion[..., neighbour] + difference
    for finger in FINGERS:
        abduction[..., finger] *= (1 - flexion[..., finger] / 85).clamp(0.1, 1)
    twist[..., THUMB] = 0.27 * abduction[..., THUMB] + 0.2 * flexion[..., THUMB].clamp(min=0)
    return torch.stack([flexion, abduction, twist], -1).clamp(low, high)


def rotations_from_angles(angles_deg: Tensor, axes: Tensor) -> Tensor:
    """Rotations [...,16,3,3] = twist · abduction · flexion about `axes` [16,3,3] (rows)."""
    turns = axis_angle_matrix(axes.to(angles_deg), angles_deg.deg2rad())
    return turns[..., TWIST, :, :] @ turns[..., ABDUCTION, :, :] @ turns[..., FLEXION, :, :]


class PoseSampler:
    """Joint angles of hands: named shapes and blends of them, correlated curls, and anything."""

    def __init__(self, device: torch.device | str = 'cpu') -> None:
        shapes = [shape_angles_deg(shape) for shape in HAND_SHAPES.values()]
        self.shapes_deg = torch.stack(shapes).to(device)  # [P,16,3]
        self.weights = [shape.weight for shape in HAND_SHAPES.values()]

    def __call__(self, count: int, sampler: Sampler) -> Tensor:
        """Angles [count,16,3] in degrees; the wrist's row turns the hand against the forearm."""
        kind = sampler.choice((0.72, 0.16, 0.12), count)[:, None, None]
        angles = torch.where(kind == 0, self._shapes(count, sampler), self._curls(count, sampler))
        angles = torch.where(kind == 2, self._uniform(count, sampler), angles)
        wrist = torch.stack([sampler.normal(20, count), sampler.normal(8, count) - 3], -1)
        angles[:, WRIST, :2] = wrist
        return couple(angles)

    def _shapes(self, count: int, sampler: Sampler) -> Tensor:
        """A shape of the table, pure or on the way to another, with every joint a little off."""
        first = self.shapes_deg[sampler.choice(self.weights, count)]
        second = self.shapes_deg[sampler.choice(self.weights, count)]
        progress = sampler.uniform(0, 1, count, 1, 1)
        blend = torch.where(sampler.coin(0.35, count, 1, 1), progress, progress * 0.15)
        angles = first + blend * (second - first)
        noise = sampler.normal(1, count, 16, 3) * torch.tensor(
            [6.0, 3.0, 0.5], device=first.device
        )
        return angles + noise * sampler.uniform(0.3, 1.3, count, 1, 1)

    def _curls(self, count: int, sampler: Sampler) -> Tensor:
        """Fingers that close more or less together (the first synergy of grasping hands)."""
        curl = (sampler.uniform(0, 1, count, 1) + sampler.normal(0.2, count, 5)).clamp(0, 1)
        angles = torch.zeros(count, 16, 3, device=sampler.device)
        spread = torch.tensor((6.0, 0.0, -4.0, -9.0), device=sampler.device)
        for i, finger in enumerate(FINGERS):
            pip = (curl[:, i] + sampler.normal(0.18, count)).clamp(0, 1) * 105
            angles[:, finger, FLEXION] = curl[:, i] * 88 - 8 + sampler.normal(14, count)
            angles[:, finger + 1, FLEXION] = pip
            angles[:, finger + 2, FLEXION] = 0.63 * pip + sampler.normal(6, count)
            angles[:, finger, ABDUCTION] = spread[i] + sampler.normal(6, count)
        angles[:, THUMB, FLEXION] = sampler.uniform(-20, 40, count)
        angles[:, THUMB, ABDUCTION] = sampler.uniform(-5, 45, count)
        angles[:, THUMB + 1, FLEXION] = -5 + 50 * curl[:, 4]
        angles[:, THUMB + 2, FLEXION] = -10 + 75 * curl[:, 4] * sampler.uniform(0.3, 1, count)
        return angles

    def _uniform(self, count: int, sampler: Sampler) -> Tensor:
        low, high = torch.tensor(LIMITS_DEG, dtype=torch.float32, device=sampler.device).unbind(-1)
        angles = low + (high - low) * sampler.uniform(0, 1, count, 16, 3)
        for finger in FINGERS:
            angles[:, finger + 2, FLEXION] = 2 / 3 * angles[:, finger + 1, FLEXION]
            angles[:, finger + 2, FLEXION] += sampler.normal(8, count)
        return angles


def finger_capsules(joints_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 15 phalanges of 21 joints [N,21,3]: starts and ends [N,15,3] and radii [15]."""
    starts = [4 * finger + part for finger in range(5) for part in (1, 2, 3)]
    radii = torch.tensor(FINGER_RADII_M, dtype=joints_m.dtype, device=joints_m.device).flatten()
    return joints_m[:, starts], joints_m[:, [s + 1 for s in starts]], radii


def segment_distance(p1: Tensor, q1: Tensor, p2: Tensor, q2: Tensor) -> Tensor:
    """Shortest distances [...] of segments p1-q1 and p2-q2 [...,3] (Ericson 2005, 5.1.9)."""
    d1, d2, r = q1 - p1, q2 - p2, p1 - p2
    a, e, b = (d1 * d1).sum(-1), (d2 * d2).sum(-1), (d1 * d2).sum(-1)
    c, f = (d1 * r).sum(-1), (d2 * r).sum(-1)
    denominator = a * e - b * b
    s = torch.where(denominator > 1e-12, (b * f - c * e) / denominator.clamp(min=1e-12), 0 * a)
    t = ((b * s.clamp(0, 1) + f) / e.clamp(min=1e-12)).clamp(0, 1)
    s = ((b * t - c) / a.clamp(min=1e-12)).clamp(0, 1)
    distance: Tensor = (p1 + d1 * s[..., None] - p2 - d2 * t[..., None]).norm(dim=-1)
    return distance


def self_penetration(joints_m: Tensor) -> Tensor:
    """How deep [N] m fingers sink into others, by capsules around the bones of [N,21,3]."""
    starts, ends, radii = finger_capsules(joints_m)
    first, second = torch.triu_indices(15, 15, 1, device=joints_m.device)
    finger, part = first // 3, first % 3
    apart = (finger != second // 3) & ~((part == 0) & (second % 3 == 0))
    first, second = first[apart], second[apart]
    distance = segment_distance(
        starts[:, first], ends[:, first], starts[:, second], ends[:, second]
    )
    scale = (joints_m[:, 9] - joints_m[:, 0]).norm(dim=-1) / 0.095  # radii are an adult's
    depth = scale[:, None] * (radii[first] + radii[second]) - distance
    deepest: Tensor = depth.clamp(min=0).amax(-1)
    return deepest
