"""From fragments to linear colour: gather the covered pixels, apply materials, light them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from handos_training.synth.render.lighting import Lights, irradiance
from handos_training.synth.render.materials import Looks, Pixels, Surface, surface
from handos_training.synth.render.mesh import Material, SceneMesh
from handos_training.synth.render.occlusion import ambient_occlusion
from handos_training.synth.render.pixels import dot, take, unit
from handos_training.synth.render.raster import Fragments, vertex_images
from handos_training.synth.render.shadows import ShadowMap


def shade(
    mesh: SceneMesh,
    fragments: Fragments,
    cameras_px: Tensor,
    lights: Lights,
    looks: Looks,
    shadow_resolution: int = 160,
) -> Tensor:
    """Linear colour [B,3,H,W] of every covered pixel; the others are black."""
    B, H, W = fragments.face.shape
    rgb = torch.zeros(3, B * H * W, device=fragments.face.device)
    covered = fragments.covered
    if len(covered):
        shadows = ShadowMap.draw(mesh, lights, fragments.depth_m, cameras_px, shadow_resolution)
        sky = ambient_occlusion(fragments.depth_m, cameras_px[:, 0, 0])
        table = vertex_table(mesh, lights)
        owner, seam = _face_materials(mesh)
        face = fragments.face.view(-1).index_select(0, covered)
        kinds = owner.index_select(0, face)
        mixed = seam.index_select(0, face).nonzero().squeeze(1)
        kinds[mixed] = _heaviest(mesh, fragments.weights[mixed], face[mixed])
        for material in Material:
            own = (kinds == material).nonzero().squeeze(1)
            if len(own):
                index = covered.index_select(0, own)
                region = gather(
                    mesh, table, fragments, cameras_px, looks.shift_m, own, material, seam
                )
                matter = surface(material, region.pixels, looks)
                lit = shadows.lit(region.points_m, region.image)
                open_sky = half_resolution(sky, index, H, W)
                colour = _reflect(matter, region, lights, lit, open_sky)
                rgb.scatter_(1, index.expand(3, -1), colour)
    return rgb.view(3, B, H, W).transpose(0, 1)


@dataclass
class Region:
    """P covered pixels: what is there, where in the camera's frame, and the light around."""

    pixels: Pixels
    image: Tensor  # [P]
    points_m: Tensor  # [3,P]
    ambient: Tensor  # [3,P] irradiance / pi of the smooth surface, without occlusion


def vertex_table(mesh: SceneMesh, lights: Lights) -> Tensor:
    """[N,13] of what is interpolated: normal, texture, albedo, gloss, ambient light.

    Ambient light is so smooth that the vertices are samples enough.
    """
    ambient = irradiance(lights.harmonics, mesh.normals.T, vertex_images(mesh)).T
    return torch.cat([mesh.normals, mesh.texture_m, mesh.albedo, mesh.gloss[:, None], ambient], 1)


def gather(
    mesh: SceneMesh,
    table: Tensor,
    fragments: Fragments,
    cameras_px: Tensor,
    shift_m: Tensor,
    chosen: Tensor,
    material: Material,
    seam: Tensor | None = None,
) -> Region:
    """Interpolate the vertices at those of the covered pixels that `chosen` [P] names.

    `shift_m` [B,3] moves each image to a place of its own in the solid noise. Where a triangle's
    corners differ in material, as `seam` [F] says, the colour is that of its corners of
    `material` alone: a sharp edge.
    """
    _, H, W = fragments.face.shape
    index = fragments.covered.index_select(0, chosen)
    face = fragments.face.view(-1).index_select(0, index)
    corners = mesh.faces.index_select(0, face)
    weights = fragments.weights.index_select(0, chosen)
    values = F.embedding_bag(corners, table, mode='sum', per_sample_weights=weights).T.contiguous()
    if seam is not None and seam.any():
        mixed = seam.index_select(0, face).nonzero().squeeze(1)
        foreign = mesh.material[corners[mixed]] != material
        own = weights[mixed].masked_fill(foreign, 0)
        own /= own.sum(1, keepdim=True).clamp(min=1e-6)
        values[6:9, mixed] = F.embedding_bag(
            corners[mixed], mesh.albedo, mode='sum', per_sample_weights=own
        ).T

    short = index.int()
    image = short // (H * W)
    depth = fragments.depth_m.view(-1).index_select(0, index)
    focal_x, focal_y, center_x, center_y = take(
        torch.stack([cameras_px[:, 0, 0], cameras_px[:, 1, 1], *cameras_px[:, :2, 2].T], 1), image
    )
    x, y = short % W - center_x, short // W % H - center_y
    footprint = depth / focal_x
    points = torch.stack([x * footprint, y * depth / focal_y, depth])
    pixels = Pixels(
        look=image,
        rest_m=values[3:6] + take(shift_m, image),
        albedo=values[6:9],
        normal=unit(values[:3]),
        gloss=values[9],
        footprint_m=footprint,
    )
    return Region(pixels, image, points, values[10:13])


def half_resolution(image: Tensor, index: Tensor, height: int, width: int) -> Tensor:
    """Values [P] at full-size pixels `index` [P] of an image [B,ceil(H/2),ceil(W/2)]."""
    _, h, w = image.shape
    row = index.int() // width
    column = index.int() - row * width
    owner = row // height
    row = (row - owner * height) // 2 + owner * h
    return image.view(-1).index_select(0, row.mul_(w).add_(column // 2))


def _face_materials(mesh: SceneMesh) -> tuple[Tensor, Tensor]:
    """Each face's first corner's material [F], and whether its corners differ [F]."""
    corners = mesh.faces.T.flatten()
    first, second, third = mesh.material.index_select(0, corners).view(3, -1)
    return first, (first != second) | (first != third)


def _heaviest(mesh: SceneMesh, weights: Tensor, face: Tensor) -> Tensor:
    """The material [P] that outweighs the others at pixels on seams."""
    materials = mesh.material[mesh.faces[face]]
    same = materials[:, :, None] == materials[:, None]
    winner = (same * weights[:, None]).sum(2).argmax(1, keepdim=True)
    return materials.gather(1, winner).squeeze(1)


def _reflect(
    matter: Surface, region: Region, lights: Lights, lit: Tensor, open_sky: Tensor
) -> Tensor:
    """Radiance [3,P] towards the camera."""
    image, normal = region.image, matter.normal
    key, color = take(lights.key_direction, image), take(lights.key_color, image)
    view = -unit(region.points_m)

    facing = dot(normal, key)
    # Relief under ambient light: the first-order change of the luminance with the normal.
    mean, slope = _mean_and_slope(lights)
    slope = take(slope, image)
    relief = dot(slope, normal - region.pixels.normal).clamp_(-0.8, 0.8).add_(1)
    rgb = torch.empty_like(matter.albedo)
    bounce, penumbra = 1 - open_sky, lit * (1 - lit)
    for c, wrap in enumerate(matter.wrap):
        # Blood-filled tissue lets red light creep into shadow and past the terminator.
        direct = (facing + wrap).div_(1 + wrap).clamp_(0, 1).mul_(lit + 0.5 * wrap * penumbra)
        # Creases are lighter and more colourful than a grey occlusion: light bounces in them.
        occluded = (matter.albedo[c] * bounce).mul_(0.5).add_(open_sky).mul_(relief)
        total = direct.mul_(color[c]).addcmul_(occluded, region.ambient[c])
        torch.mul(matter.albedo[c], total, out=rgb[c])

    half = unit(view + key)
    shininess = matter.shininess
    lobe = dot(normal, half).clamp_(1e-4, 1).log_().mul_(shininess).exp_()
    highlight = lobe.mul_(shininess + 8).mul_(facing.clamp(0, 1)).mul_(lit).div_(8)
    cosine = dot(view, normal).clamp_(0, 1)
    roughness = 30 / (shininess + 30)
    edge = (1 - cosine).square_()
    rim = edge.square() * (1 - cosine) * 0.5 * (1 - roughness).square() * open_sky
    mirrored = dot(slope, 2 * cosine * normal - view).mul_(1 - 0.6 * roughness)
    around = mirrored.add_(1).clamp_(min=0.1)
    specular = matter.specular * open_sky + (1 - matter.specular) * rim
    rgb.addcmul_(specular * around, take(mean, image))
    return rgb.addcmul_(matter.specular * highlight, color)


def _mean_and_slope(lights: Lights) -> tuple[Tensor, Tensor]:
    """Mean ambient colour [B,3], and its luminance's relative change with the normal [B,3]."""
    mean = 0.282095 * lights.harmonics[:, 0]
    first = 0.488603 * lights.harmonics[:, [3, 1, 2]].mean(2)  # in the order x, y, z
    return mean, first / mean.mean(1, keepdim=True).clamp(min=1e-3)
