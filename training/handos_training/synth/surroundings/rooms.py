"""Invented rooms: walls, furniture, and clutter that stands on it, drawn like any other scene.

A room is a handful of boxes and cylinders around the camera with a print of their own each. It is
drawn small, because it is out of focus anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from handos_training.synth.render.lighting import Lights
from handos_training.synth.render.materials import Pattern, fabric_colors, printed
from handos_training.synth.render.mesh import OTHER_PART, Material, SceneMesh
from handos_training.synth.render.occlusion import ambient_occlusion
from handos_training.synth.render.pixels import dot, take
from handos_training.synth.render.raster import rasterize
from handos_training.synth.render.shade import gather, half_resolution, vertex_table
from handos_training.synth.render.shadows import ShadowMap
from handos_training.synth.sampling import Sampler

WALLS, FURNITURE, BOOKS, PICTURES, CLUTTER, CYLINDERS = 6, 6, 12, 4, 10, 10
BOXES = WALLS + FURNITURE + BOOKS + PICTURES + CLUTTER
SOLIDS = BOXES + CYLINDERS
SHELF = 4  # index in the furniture
SIDES = 12  # of a cylinder
OCCLUSION_RADII_M = (0.06, 0.3)
SHADOW_RESOLUTION = 160  # at most; a small picture needs no more than its own


@dataclass
class _Solids:
    """N solids an image that turn about the vertical; metres, y down, z away from the camera."""

    center: Tensor  # [B,N,3]
    half: Tensor  # [B,N,3]
    yaw: Tensor  # [B,N]
    color: Tensor  # [B,N,3]; above 1 it glows


def room_background(
    sampler: Sampler,
    world_from_camera: Tensor,
    cameras_px: Tensor,
    height: int,
    width: int,
    lights: Lights,
) -> Tensor:
    """Linear light [B,3,height,width] of a new room around each camera."""
    B = len(cameras_px)
    mesh = _mesh(_furnish(sampler, B), _camera_from_room(sampler, world_from_camera))
    prints = Pattern.sample(sampler, B * SOLIDS, plain=0.4, shortest_m=0.012)
    # Walls and furniture are quieter than books and boxes.
    loudness = [0.25] * WALLS + [0.4] * FURNITURE + [1.0] * (SOLIDS - WALLS - FURNITURE)
    prints.strength *= torch.tensor(loudness, device=mesh.faces.device).repeat(B)

    fragments = rasterize(mesh, cameras_px, height, width)
    index = fragments.covered
    table = vertex_table(mesh, lights)
    shift = sampler.uniform(-1, 1, B, 3)
    everywhere = torch.arange(len(index), device=index.device)
    region = gather(mesh, table, fragments, cameras_px, shift, everywhere, Material.RIGID)
    solid = mesh.face_part[fragments.face.view(-1)[index]] - OTHER_PART
    albedo = printed(replace(region.pixels, look=solid), prints)

    # Light comes in through the walls, as if every wall had a window.
    casts = (mesh.face_part - OTHER_PART) % SOLIDS >= WALLS
    solids = replace(mesh, faces=mesh.faces[casts], face_image=mesh.face_image[casts])
    resolution = min(SHADOW_RESOLUTION, max(height, width))
    shadows = ShadowMap.draw(solids, lights, fragments.depth_m, cameras_px, resolution)
    sky = ambient_occlusion(fragments.depth_m, cameras_px[:, 0, 0], OCCLUSION_RADII_M)
    light = region.ambient * half_resolution(sky, index, height, width)
    facing = dot(region.pixels.normal, take(lights.key_direction, region.image)).clamp_(min=0)
    facing *= shadows.lit(region.points_m, region.image)
    light.addcmul_(take(lights.key_color, region.image), facing)
    picture = torch.zeros(3, B * height * width, device=index.device)
    picture.scatter_(1, index.expand(3, -1), albedo * light)
    return picture.view(3, B, height, width).transpose(0, 1)


def _camera_from_room(sampler: Sampler, world_from_camera: Tensor) -> Tensor:
    """[B,3,3]; a room is turned so that its far wall and its desk are about where one looks."""
    forward = world_from_camera[:, :, 2]
    angle = torch.atan2(forward[:, 0], forward[:, 2]) + sampler.normal(0.35, len(forward))
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cosine, sine = angle.cos(), angle.sin()
    rows = (cosine, zero, sine, zero, one, zero, -sine, zero, cosine)
    return world_from_camera.transpose(1, 2) @ torch.stack(rows, 1).view(-1, 3, 3)


def _furnish(sampler: Sampler, B: int) -> _Solids:
    """All solids of a room: boxes first, then cylinders."""
    u = sampler.uniform
    floor, ceiling = u(0.7, 1.7, B), u(-1.8, -0.7, B)
    side, back, far = u(1.2, 3.5, B), u(0.8, 2.5, B), sampler.log_uniform(0.8, 5, B)
    zero, slab = torch.zeros_like(floor), torch.full_like(floor, 0.02)
    middle, depth, tall = (far - back) / 2, (far + back) / 2, (floor - ceiling) / 2
    level = (floor + ceiling) / 2
    walls = _Solids(
        _rows((-side, level, middle), (side, level, middle), (zero, ceiling, middle),
              (zero, floor, middle), (zero, level, -back), (zero, level, far)),
        _rows((slab, tall, depth), (slab, tall, depth), (side, slab, depth),
              (side, slab, depth), (side, tall, slab), (side, tall, slab)),
        torch.zeros(B, WALLS, device=sampler.device),
        _wall_colors(sampler, B),
    )  # fmt: skip

    # The desk before the camera, three cupboards and a shelf at the far wall, something between.
    half = torch.stack([u(0.2, 0.7, B, 6), u(0.2, 1.0, B, 6), u(0.12, 0.35, B, 6)], 2)
    half[:, 0] = torch.stack([u(0.5, 1.2, B), slab, u(0.3, 0.6, B)], 1)
    half[:, SHELF] = torch.stack([u(0.4, 1.1, B), slab * 0.8, slab * 6], 1)
    place = torch.stack([u(-1, 1, B, 6) * side[:, None], floor[:, None] - half[..., 1],
                         far[:, None] - half[..., 2]], 2)  # fmt: skip
    eye = torch.where(sampler.coin(0.65, B), u(0.15, 0.6, B), floor)
    place[:, 0] = torch.stack([u(-0.4, 0.4, B), eye, u(0.3, 0.9, B)], 1)
    place[:, SHELF, 0] *= 0.4
    place[:, SHELF, 1] = u(-0.6, 0.35, B)
    place[:, 5, 2] = u(0.5, 1, B) * far
    yaw = sampler.normal(0.15, B, FURNITURE)
    yaw[:, 1:5] = 0
    furniture = _Solids(place, half, yaw, _furniture_colors(sampler, B))

    parts = (
        walls,
        furniture,
        _books(sampler, furniture),
        _pictures(sampler, far, side),
        _clutter(sampler, furniture, CLUTTER, 0.5),
        _clutter(sampler, furniture, CYLINDERS, 0.8),
    )
    parts[-1].half[..., 2] = parts[-1].half[..., 0]
    fields = ('center', 'half', 'yaw', 'color')
    return _Solids(*(torch.cat([getattr(p, name) for p in parts], 1) for name in fields))


def _wall_colors(sampler: Sampler, B: int) -> Tensor:
    """[B,6,3]: one light paint, now and then an accent; a bright ceiling; a floor of its own."""
    paint = sampler.uniform(0.3, 0.85, B, 1, 1) * sampler.normal(0.1, B, 1, 3).exp()
    colors = (paint * sampler.normal(0.08, B, WALLS, 1).exp()).clamp(0.02, 0.9)
    accent = fabric_colors(sampler, B * WALLS).view(B, WALLS, 3)
    colors = torch.where(sampler.coin(0.2, B, WALLS, 1), accent, colors)
    colors[:, 2] = sampler.uniform(0.6, 0.9, B, 1)
    floor = torch.where(sampler.coin(0.6, B, 1), _wood(sampler, B), fabric_colors(sampler, B))
    colors[:, 3] = floor
    return colors


def _furniture_colors(sampler: Sampler, B: int) -> Tensor:
    wood = _wood(sampler, B * FURNITURE)
    white = sampler.uniform(0.6, 0.85, B * FURNITURE, 1).expand(-1, 3)
    other = fabric_colors(sampler, B * FURNITURE)
    kind = sampler.choice((0.5, 0.3, 0.2), B * FURNITURE)[None, :, None].expand(1, -1, 3)
    return torch.stack([wood, white, other]).gather(0, kind).view(B, FURNITURE, 3)


def _wood(sampler: Sampler, count: int) -> Tensor:
    wood = torch.tensor([0.36, 0.2, 0.1], device=sampler.device)
    shade = sampler.normal(0.5, count, 1) + sampler.normal(0.1, count, 3)
    return (wood * shade.exp()).clamp(0.02, 0.85)


def _books(sampler: Sampler, furniture: _Solids) -> _Solids:
    """A row of upright books on the shelf, sometimes leaning back and never of one height."""
    B = len(furniture.yaw)
    half = torch.stack(
        [sampler.log_uniform(0.006, 0.03, B, BOOKS), sampler.uniform(0.07, 0.15, B, BOOKS),
         sampler.uniform(0.06, 0.1, B, BOOKS)], 2,
    )  # fmt: skip
    shelf, size = furniture.center[:, SHELF], furniture.half[:, SHELF]
    gap = half[..., 0] * 2 + sampler.uniform(0, 1, B, BOOKS).pow(8) * 0.3
    x = gap.cumsum(1) - half[..., 0] - sampler.uniform(0.2, 1, B, 1) * size[:, :1]
    y = -size[:, 1:2] - half[..., 1]
    center = shelf[:, None] + torch.stack([x, y, torch.zeros_like(x)], 2)
    color = fabric_colors(sampler, B * BOOKS).view(B, BOOKS, 3)
    return _Solids(center, half, torch.zeros_like(x), color)


def _pictures(sampler: Sampler, far: Tensor, side: Tensor) -> _Solids:
    """Windows and pictures on the far wall and the side walls; windows glow."""
    u, B, N = sampler.uniform, len(far), PICTURES
    half = torch.stack([u(0.12, 0.6, B, N), u(0.12, 0.6, B, N), u(0.01, 0.03, B, N)], 2)
    x, z = u(-1, 1, B, N) * side[:, None], far[:, None].expand(B, N).clone()
    yaw = torch.zeros(B, N, device=far.device)
    x[:, 2:] = side[:, None] * (2.0 * sampler.coin(0.5, B, 2) - 1)
    z[:, 2:] = u(0.2, 0.9, B, 2) * far[:, None]
    yaw[:, 2:] = math.pi / 2
    color = fabric_colors(sampler, B * N).view(B, N, 3)
    glow = sampler.log_uniform(1.5, 7, B, N, 1) * sampler.normal(0.1, B, N, 3).exp()
    color = torch.where(sampler.coin(0.3, B, N, 1), glow, color)
    return _Solids(torch.stack([x, u(-0.9, 0.3, B, N), z], 2), half, yaw, color)


def _clutter(sampler: Sampler, furniture: _Solids, count: int, upright: float) -> _Solids:
    """Things of daily size that stand on the furniture; half of them on the desk."""
    B, u = len(furniture.yaw), sampler.uniform
    host = sampler.choice((0.5, 0.1, 0.1, 0.1, 0.1, 0.1), B * count).view(B, count)
    pick = host[..., None].expand(-1, -1, 3)
    center, size = furniture.center.gather(1, pick), furniture.half.gather(1, pick)
    spread = torch.tensor([0.3, 0.6, 0.3], device=u(0, 1, 1).device)
    half = sampler.log_uniform(0.02, 0.09, B, count, 1)
    half = half * (sampler.normal(1, B, count, 3) * spread).exp()
    half[..., 1] *= upright + 0.5
    x, _, z = (u(-0.95, 0.95, B, count, 3) * size).unbind(2)
    turn = furniture.yaw.gather(1, host)
    cosine, sine = turn.cos(), turn.sin()
    offset = torch.stack(
        [cosine * x + sine * z, -size[..., 1] - half[..., 1], cosine * z - sine * x], 2
    )
    color = fabric_colors(sampler, B * count).view(B, count, 3)
    return _Solids(center + offset, half, u(-math.pi, math.pi, B, count), color)


def _rows(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """[B,N,3] of N triples of [B]."""
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def _mesh(solids: _Solids, camera_from_room: Tensor) -> SceneMesh:
    """One flat mesh; a face's part says which solid of which image it is."""
    device = solids.yaw.device
    box, cylinder = _box(device), _cylinder(device)
    B = len(solids.yaw)
    positions, normals, rests, faces, owners, colors = [], [], [], [], [], []
    images, offset = [], 0
    for (corners, directions, triangles), part in (
        (box, slice(0, BOXES)),
        (cylinder, slice(BOXES, SOLIDS)),
    ):
        half, yaw = solids.half[:, part, None], solids.yaw[:, part]
        N, V = yaw.shape[1], len(corners)
        zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
        cosine, sine = yaw.cos(), yaw.sin()
        turn = torch.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine], 2)
        turn = camera_from_room[:, None] @ turn.view(B, N, 3, 3)
        rest = corners * half
        center = solids.center[:, part] @ camera_from_room.transpose(1, 2)
        positions.append((rest @ turn.transpose(2, 3) + center[:, :, None]).view(-1, 3))
        normals.append((directions @ turn.transpose(2, 3)).reshape(-1, 3))
        rests.append(rest.reshape(-1, 3))
        colors.append(solids.color[:, part, None].expand(B, N, V, 3).reshape(-1, 3))
        index = torch.arange(B * N, device=device)
        faces.append((triangles + index[:, None, None] * V).view(-1, 3) + offset)
        solid = index // N * SOLIDS + index % N + part.start
        owners.append(solid.repeat_interleave(len(triangles)))
        images.append(index.div(N, rounding_mode='floor').repeat_interleave(V))
        offset += B * N * V
    owner, rest = torch.cat(owners), torch.cat(rests)
    return SceneMesh(
        vertices_m=torch.cat(positions),
        normals=torch.cat(normals),
        albedo=torch.cat(colors),
        texture_m=rest,
        material=torch.full((len(rest),), int(Material.RIGID), device=device),
        gloss=torch.zeros(len(rest), device=device),
        faces=torch.cat(faces),
        face_image=owner // SOLIDS,
        face_part=owner + OTHER_PART,
        vertex_image=torch.cat(images),
    )


def _box(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Corners [24,3] of the cube of half size 1, their normals, outward faces [12,3]."""
    axes = torch.eye(3, device=device)
    corners, normals = [], []
    for axis in range(3):
        for sign in (1.0, -1.0):
            normal, a = sign * axes[axis], axes[(axis + 1) % 3]
            b = torch.linalg.cross(normal, a)
            corners += [normal + a + b, normal - a + b, normal - a - b, normal + a - b]
            normals += [normal] * 4
    quads = torch.tensor([[0, 1, 2], [0, 2, 3]], device=device)
    faces = (quads + 4 * torch.arange(6, device=device)[:, None, None]).view(-1, 3)
    return torch.stack(corners), torch.stack(normals), faces


def _cylinder(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """An upright cylinder of radius and half height 1: vertices, normals, outward faces."""
    angle = torch.arange(SIDES, device=device) * (2 * math.pi / SIDES)
    rim = torch.stack([angle.cos(), torch.zeros_like(angle), angle.sin()], 1)
    up = torch.tensor([0.0, 1, 0], device=device)
    corners = torch.cat([rim + up, rim - up, rim + up, rim - up])
    normals = torch.cat([rim, rim, up.expand(SIDES, 3), -up.expand(SIDES, 3)])
    i = torch.arange(SIDES, device=device)
    j = (i + 1) % SIDES
    fan = torch.arange(1, SIDES - 1, device=device)
    first = torch.zeros_like(fan)
    faces = torch.cat(
        [
            torch.stack([i, j, i + SIDES], 1),
            torch.stack([j, j + SIDES, i + SIDES], 1),
            torch.stack([first, fan + 1, fan], 1) + 2 * SIDES,
            torch.stack([first, fan, fan + 1], 1) + 3 * SIDES,
        ]
    )
    return corners, normals, faces
