"""From fragments to linear colour: gather the covered pixels, apply materials, light them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from handos_training.synth.lighting import Lights, irradiance
from handos_training.synth.materials import Looks, Pixels, Surface, surface
from handos_training.synth.mesh import SceneMesh
from handos_training.synth.occlusion import ambient_occlusion
from handos_training.synth.raster import Fragments
from handos_training.synth.shadows import light_reaching


@dataclass
class Shaded:
    """Linear light; what is not covered is zero."""

    rgb: Tensor  # [B,3,H,W]
    alpha: Tensor  # [B,H,W], 1 where a surface is


def shade(
    mesh: SceneMesh,
    fragments: Fragments,
    camera_matrices_px: Tensor,
    lights: Lights,
    looks: Looks,
    shadow_resolution: int = 256,
) -> Shaded:
    """Light every covered pixel of a batch."""
    B, H, W = fragments.face.shape
    index = (fragments.face.view(-1) >= 0).nonzero().squeeze(1)
    rgb = torch.zeros(B * H * W, 3, device=index.device)
    if len(index):
        pixels, material, points_m = _gather(mesh, fragments, camera_matrices_px, looks, index)
        lit = light_reaching(mesh, lights, points_m, pixels.image, shadow_resolution)
        sky = ambient_occlusion(fragments.depth_m, camera_matrices_px[:, 0, 0])
        sky = sky.view(-1).index_select(0, index)
        matter = surface(pixels, material, looks)
        rgb[index] = _reflect(matter, points_m, pixels.image, lights, lit, sky)
    image = rgb.view(B, H, W, 3).permute(0, 3, 1, 2)
    return Shaded(image, (fragments.face >= 0).float())


def _gather(
    mesh: SceneMesh, fragments: Fragments, cameras: Tensor, looks: Looks, index: Tensor
) -> tuple[Pixels, Tensor, Tensor]:
    """Interpolated attributes, materials [P] and camera-frame positions [P,3] of pixels [P]."""
    _, H, W = fragments.face.shape
    corners = mesh.faces.index_select(0, fragments.face.view(-1).index_select(0, index))
    weights = fragments.barycentric.view(-1, 3).index_select(0, index)
    image = index // (H * W)

    # A seam between materials is a sharp line: the colour of the one that outweighs the others.
    materials = mesh.material[corners]
    same = materials[:, :, None] == materials[:, None]
    winner = (same * weights[:, None]).sum(2).argmax(1, keepdim=True)
    own = weights * (materials == materials.gather(1, winner))
    own = own / own.sum(1, keepdim=True).clamp(min=1e-6)

    geometry = torch.cat([mesh.normals, mesh.texture_m, mesh.gloss[:, None]], 1)
    values = _interpolate(geometry, corners, weights)
    albedo = _interpolate(mesh.albedo, corners, own)
    depth = fragments.depth_m.view(-1).index_select(0, index)
    inverse = torch.linalg.inv(cameras).index_select(0, image)
    position_px = torch.stack([index % W, index // W % H, torch.ones_like(index)], 1).float()
    points_m = (inverse * position_px[:, None]).sum(2) * depth[:, None]

    normal = torch.nn.functional.normalize(values[:, :3], dim=1)
    pixels = Pixels(
        image=image,
        rest_m=values[:, 3:6] + looks.shift_m.index_select(0, image),
        albedo=albedo,
        normal=normal,
        gloss=values[:, 6],
        footprint_m=depth / cameras[:, 0, 0].index_select(0, image),
    )
    return pixels, materials.gather(1, winner).squeeze(1), points_m


def _interpolate(values: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """Vertex values [N,C] at pixels: corners [P,3], weights [P,3] -> [P,C]."""
    result = values.index_select(0, corners[:, 0]) * weights[:, :1]
    result.addcmul_(values.index_select(0, corners[:, 1]), weights[:, 1:2])
    return result.addcmul_(values.index_select(0, corners[:, 2]), weights[:, 2:])


def _reflect(
    matter: Surface, points_m: Tensor, image: Tensor, lights: Lights, lit: Tensor, sky: Tensor
) -> Tensor:
    """Radiance [P,3] towards the camera."""
    normal = matter.normal
    view = -torch.nn.functional.normalize(points_m, dim=1)
    key = lights.key_direction.index_select(0, image)
    color = lights.key_color.index_select(0, image)
    harmonics = lights.harmonics.index_select(0, image)

    facing = (normal * key).sum(1, keepdim=True)
    diffuse = ((facing + matter.wrap) / (1 + matter.wrap)).clamp_(0, 1)
    # Blood-filled tissue lets red light creep into its shadows.
    soft_lit = lit[:, None] + matter.wrap * 0.5 * (1 - lit[:, None]) * lit[:, None]
    direct = color * soft_lit * diffuse
    # Creases are darker but redder than a grey occlusion: light bounces within them.
    tinted_sky = sky[:, None] + (1 - sky[:, None]) * 0.5 * matter.albedo
    ambient = irradiance(harmonics, normal) * tinted_sky
    rgb = matter.albedo * (direct + ambient)

    half = torch.nn.functional.normalize(view + key, dim=1)
    cosine = (view * normal).sum(1, keepdim=True).clamp_(0, 1)
    fresnel = matter.specular + (1 - matter.specular) * (0.7 * (1 - cosine) ** 5)
    shininess = matter.shininess[:, None]
    lobe = (normal * half).sum(1, keepdim=True).clamp_(1e-4, 1).log_().mul_(shininess).exp_()
    highlight = lobe * (shininess + 8) / 8 * facing.clamp(0, 1)
    rgb.addcmul_(matter.specular * highlight, color * lit[:, None])
    mirrored = 2 * cosine * normal - view
    roughness = (1 - shininess / (shininess + 30)) * 0.7
    glossy = irradiance(harmonics, torch.lerp(mirrored, normal, roughness))
    return rgb.addcmul_(fresnel * sky[:, None] * (1 - 0.6 * roughness), glossy)
