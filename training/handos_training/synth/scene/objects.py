"""Things that hands hold and things in the way: lathed or boxy solids with signed distances.

Every solid is one grid of rings around its z axis, so a batch of different things is one mesh.
The cross-section is a circle or a rounded rectangle; a profile says how the radius changes from
the bottom to the top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from handos_training.synth.people.placement import Placement
from handos_training.synth.render.mesh import Material, SceneMesh
from handos_training.synth.render.surface import (
    cloth_colours,
    instances,
    uniform_material,
    vertex_normals,
)
from handos_training.synth.sampling import Sampler

Range = tuple[float, float]
SIDES = 24
POWER, PINCH = 0, 1  # how a thing is held

# Radius and height along the outline, bottom to top, both relative to the largest.
_CAN = ((0, -1), (0.90, -1), (0.97, -0.985), (1, -0.95), (1, -0.5), (1, 0), (1, 0.5), (1, 0.93),
        (0.94, 0.975), (0.88, 1), (0.84, 0.985), (0, 0.98))  # fmt: skip
_BOTTLE = ((0, -1), (0.88, -1), (0.98, -0.98), (1, -0.93), (1, -0.4), (1, 0.1), (0.93, 0.35),
           (0.6, 0.58), (0.38, 0.7), (0.36, 0.85), (0.40, 0.99), (0, 1))  # fmt: skip
_CUP = ((0, -1), (0.80, -1), (0.86, -0.97), (0.90, -0.8), (0.95, -0.2), (1, 0.4), (1, 0.98),
        (0.985, 1), (0.95, 0.99), (0.90, 0), (0.82, -0.85), (0, -0.9))  # fmt: skip
_BALL = tuple((math.sin(i * math.pi / 11), -math.cos(i * math.pi / 11)) for i in range(12))
_BOX = ((0, -1), (0.5, -1), (0.93, -1), (0.98, -0.99), (1, -0.97), (1, -0.3), (1, 0.3), (1, 0.97),
        (0.98, 0.99), (0.93, 1), (0.5, 1), (0, 1))  # fmt: skip
_TOOL = ((0, -1), (0.8, -1), (1, -0.95), (1.0, -0.5), (0.9, -0.1), (1, 0.25), (0.85, 0.4),
         (0.4, 0.45), (0.38, 0.7), (0.38, 0.9), (0.3, 0.98), (0, 1))  # fmt: skip


class Kind(NamedTuple):
    weight: float
    profile: tuple[tuple[float, float], ...]
    half_width_m: Range
    half_depth_m: Range | None  # None: round
    half_length_m: Range
    grip: int


KINDS: dict[str, Kind] = {
    'can': Kind(1.0, _CAN, (0.026, 0.034), None, (0.05, 0.075), POWER),
    'bottle': Kind(1.2, _BOTTLE, (0.026, 0.038), None, (0.09, 0.13), POWER),
    'cup': Kind(1.0, _CUP, (0.032, 0.044), None, (0.042, 0.06), POWER),
    'ball': Kind(0.8, _BALL, (0.026, 0.042), None, (0.026, 0.042), POWER),
    'box': Kind(1.0, _BOX, (0.020, 0.038), (0.012, 0.030), (0.04, 0.10), POWER),
    'slab': Kind(1.0, _BOX, (0.030, 0.038), (0.004, 0.007), (0.065, 0.085), POWER),
    'rod': Kind(1.0, _CAN, (0.009, 0.018), None, (0.07, 0.18), POWER),
    'tool': Kind(1.0, _TOOL, (0.012, 0.019), None, (0.08, 0.13), POWER),
    'pen': Kind(0.9, _TOOL, (0.004, 0.006), None, (0.06, 0.08), PINCH),
    'marble': Kind(0.4, _BALL, (0.007, 0.018), None, (0.007, 0.018), PINCH),
    'block': Kind(0.4, _BOX, (0.007, 0.018), (0.007, 0.018), (0.008, 0.03), PINCH),
}


@dataclass
class Things:
    """N solids in their own frames: z along the axis."""

    kind: Tensor  # [N] index into KINDS
    half_m: Tensor  # [N,3] width (x), depth (y), length (z)
    is_round: Tensor  # [N] bool
    is_ball: Tensor  # [N] bool

    def __getitem__(self, rows: Tensor) -> Things:
        return Things(self.kind[rows], self.half_m[rows], self.is_round[rows], self.is_ball[rows])

    def distance(self, points_m: Tensor) -> Tensor:
        """Signed distances [N,P] of points [N,P,3]: cylinders, boxes (Quilez) or balls."""
        half = self.half_m[:, None]
        radial = points_m[..., :2].norm(dim=-1) - half[..., 0]
        beside = torch.stack([radial, points_m[..., 2].abs() - half[..., 2]], -1)
        corner = points_m.abs() - half
        ball = points_m.norm(dim=-1) - half[..., 0]

        def outside(excess: Tensor) -> Tensor:
            far: Tensor = excess.clamp(min=0).norm(dim=-1)
            return far + excess.amax(-1).clamp(max=0)

        solid = torch.where(self.is_round[:, None], outside(beside), outside(corner))
        return torch.where(self.is_ball[:, None], ball, solid)


class ObjectMaker:
    """Samples things and draws them."""

    def __init__(self, device: torch.device | str = 'cpu') -> None:
        kinds = list(KINDS.values())
        self.profiles = torch.tensor([kind.profile for kind in kinds], device=device)  # [K,R,2]
        widths = [kind.half_width_m for kind in kinds]
        depths = [kind.half_depth_m or kind.half_width_m for kind in kinds]
        lengths = [kind.half_length_m for kind in kinds]
        self.ranges = torch.tensor([widths, depths, lengths], device=device).transpose(0, 1)
        self.is_round = torch.tensor([kind.half_depth_m is None for kind in kinds], device=device)
        self.is_ball = torch.tensor([kind.profile is _BALL for kind in kinds], device=device)
        self.grip = torch.tensor([kind.grip for kind in kinds], device=device)
        R = self.profiles.shape[1]
        ring, side = torch.meshgrid(
            torch.arange(R - 1, device=device), torch.arange(SIDES, device=device), indexing='ij'
        )
        a, b = ring * SIDES + side, ring * SIDES + (side + 1) % SIDES
        quads = torch.stack([a, b, b + SIDES, a + SIDES], -1).view(-1, 4)
        self.faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])

    def sample(self, count: int, sampler: Sampler) -> Things:
        kind = sampler.choice([k.weight for k in KINDS.values()], count)
        low, high = self.ranges[kind].unbind(-1)
        half = low + (high - low) * sampler.uniform(0, 1, count, 3)
        is_round, is_ball = self.is_round[kind], self.is_ball[kind]
        half[:, 1] = torch.where(is_round, half[:, 0], half[:, 1])
        half[:, 2] = torch.where(is_ball, half[:, 0], half[:, 2])
        return Things(kind, half, is_round, is_ball)

    def vertices(self, things: Things) -> Tensor:
        """[N,R*SIDES,3] in the things' own frames."""
        radius, height = self.profiles[things.kind].unbind(-1)  # [N,R]
        angle = torch.arange(SIDES, device=radius.device) * (2 * torch.pi / SIDES)
        cosine, sine = angle.cos(), angle.sin()
        square = (cosine.abs() ** 10 + sine.abs() ** 10) ** -0.1
        outline = torch.where(things.is_round[:, None], torch.ones_like(square), square)
        x = radius[..., None] * (outline * cosine)[:, None] * things.half_m[:, 0, None, None]
        y = radius[..., None] * (outline * sine)[:, None] * things.half_m[:, 1, None, None]
        z = (height * things.half_m[:, 2:])[..., None].expand_as(x)
        return torch.stack([x, y, z], -1).flatten(1, 2)

    def draw(
        self, things: Things, placement: Placement, image: Tensor, sampler: Sampler
    ) -> SceneMesh:
        """N things in the camera's frame; a placement that mirrors mirrors them too."""
        own = self.vertices(things)
        N = len(own)
        posed = placement(own)
        mirrored = torch.linalg.det(placement.linear) < 0
        normals = vertex_normals(own, self.faces) @ placement.linear.transpose(1, 2)
        colours = cloth_colours(N * 2, sampler).view(N, 2, 3)
        height = own[..., 2] / things.half_m[:, 2:]
        low, high = sampler.uniform(-0.9, 0.2, N, 1), sampler.uniform(0.1, 1, N, 1)
        band = (height > low) & (height < high) & sampler.coin(0.5, N, 1)
        albedo = torch.where(band[..., None], colours[:, 1:], colours[:, :1])
        gloss = sampler.uniform(0.05, 0.95, N, 1).expand(N, own.shape[1])
        material = uniform_material(Material.RIGID, own.shape[1], own.device)
        return instances(
            posed, normals, albedo, own, material, gloss, self.faces, image, mirrored=mirrored
        )
