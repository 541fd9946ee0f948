"""Light and matter: what is known about them in closed form, and what must never happen."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from handos_model.errors import UserError
from handos_training.synth.render.lighting import (
    Environments,
    Lights,
    irradiance,
    panorama_directions,
    panorama_grid,
    room_lights,
    rotate_harmonics,
    sample_world_from_camera,
)
from handos_training.synth.render.materials import Looks
from handos_training.synth.render.mesh import Material, SceneMesh, concatenate
from handos_training.synth.render.noise import WaveNoise
from handos_training.synth.render.occlusion import ambient_occlusion
from handos_training.synth.render.raster import rasterize
from handos_training.synth.render.shade import shade
from handos_training.synth.renderer import RenderConfig, Renderer, antialias
from handos_training.synth.sampling import Sampler
from handos_training.synth.surroundings.background import Backgrounds, BackgroundWeights
from handos_training.synth.surroundings.environments import (
    decode_radiance,
    encode_radiance,
    load_panoramas,
)
from handos_training.synth.surroundings.photos import PhotoFolder
from handos_training.synth.surroundings.rooms import _box, _cylinder

H, W = 60, 80
CAMERA = torch.tensor([[90.0, 0, 39.5], [0, 90.0, 29.5], [0, 0, 1]])


def sampler(seed: int = 0) -> Sampler:
    return Sampler(torch.Generator().manual_seed(seed))


def unit_vectors(count: int = 64) -> torch.Tensor:
    return F.normalize(torch.randn(3, count, generator=torch.Generator().manual_seed(1)), dim=0)


def uniform_light(B: int = 1) -> Lights:
    harmonics = torch.zeros(B, 9, 3)
    harmonics[:, 0] = 1 / 0.282095
    key = torch.tensor([[0.0, -1, 0]]).expand(B, 3)
    return Lights(harmonics, key, torch.zeros(B, 3), torch.full((B,), 0.02))


def ball(center: list[float], radius: float, material: Material, albedo: float) -> SceneMesh:
    corners, _, faces = _box(torch.device('cpu'))
    for _ in range(4):  # cut each triangle in four
        a, b, c = corners[faces].unbind(1)
        d, e, f = (a + b) / 2, (b + c) / 2, (c + a) / 2
        corners = torch.cat([a, b, c, d, e, f])
        i = torch.arange(len(faces)) + torch.arange(6)[:, None] * len(faces)
        faces = torch.cat([i[[0, 3, 5]].T, i[[3, 1, 4]].T, i[[5, 4, 2]].T, i[[3, 4, 5]].T])
    normals = F.normalize(corners, dim=1)
    n = len(normals)
    return SceneMesh(
        vertices_m=normals * radius + torch.tensor(center),
        normals=normals,
        albedo=torch.full((n, 3), albedo),
        texture_m=normals * radius,
        material=torch.full((n,), int(material)),
        gloss=torch.full((n,), 0.3),
        faces=faces,
        face_image=torch.zeros(len(faces), dtype=torch.int64),
        face_part=torch.ones(len(faces), dtype=torch.int64),
    )


def draw(mesh: SceneMesh, lights: Lights) -> tuple[torch.Tensor, torch.Tensor]:
    fragments = rasterize(mesh, CAMERA[None], H, W)
    looks = Looks.sample(sampler(), 1)
    looks.cloth.strength.zero_()
    looks.rigid.strength.zero_()
    return shade(mesh, fragments, CAMERA[None], lights, looks), fragments.face >= 0


def test_uniform_panorama_gives_uniform_light_and_no_key() -> None:
    environment = Environments.from_panoramas(torch.ones(1, 3, 64, 128))
    light = irradiance(environment.harmonics, unit_vectors(), torch.zeros(64, dtype=torch.int64))
    assert (light - 1).abs().max() < 0.01
    assert environment.key_color.abs().max() == 0


def test_a_lamp_in_a_panorama_becomes_the_key_light() -> None:
    panorama = torch.full((1, 3, 64, 128), 0.5)
    panorama[:, :, 20:23, 90:93] = 300.0
    environment = Environments.from_panoramas(panorama)
    lamp = panorama_directions(64, 128)[21, 91]
    assert (environment.key_direction[0] @ lamp) > 0.999
    assert environment.key_color.min() > 0.3
    found = F.grid_sample(panorama, panorama_grid(lamp)[None, None, None], align_corners=False)
    assert found.min() == 300


def test_light_turns_with_its_frame() -> None:
    harmonics = torch.randn(3, 9, 3, generator=torch.Generator().manual_seed(2))
    harmonics[:, 0] += 10
    rotation = sampler().rotations(3)
    turned = rotate_harmonics(harmonics, rotation)
    image = torch.arange(3).repeat_interleave(20)
    normal = unit_vectors(60)
    moved = torch.einsum('pij,jp->ip', rotation[image], normal)
    assert torch.allclose(
        irradiance(turned, moved, image), irradiance(harmonics, normal, image), atol=1e-4
    )


def test_given_up_vector_points_up_in_the_world() -> None:
    up = F.normalize(torch.randn(32, 3, generator=torch.Generator().manual_seed(3)), dim=1)
    rotation = sampler().rotations(1)
    assert rotation.shape == (1, 3, 3)
    world_from_camera = sample_world_from_camera(sampler(), 32, up)
    expected = torch.tensor([0.0, -1, 0]).expand(32, 3)
    assert torch.allclose((world_from_camera @ up[..., None])[..., 0], expected, atol=1e-5)
    assert torch.allclose(torch.linalg.det(world_from_camera), torch.ones(32), atol=1e-5)


def test_white_furnace() -> None:
    """A white matt ball in uniform white light of radiance 1 shows about 1 everywhere."""
    rgb, covered = draw(ball([0, 0, 1], 0.25, Material.CLOTH, 1.0), uniform_light())
    values = rgb[0][:, covered[0]]
    assert covered.sum() > 500
    assert (values.mean() - 1).abs() < 0.08
    assert values.max() < 1.6
    assert (rgb[0][:, ~covered[0]] == 0).all()


@pytest.mark.parametrize('material', list(Material))
def test_every_material_is_finite_and_lit(material: Material) -> None:
    lights = room_lights(sampler(4), torch.eye(3)[None])
    rgb, covered = draw(ball([0, 0, 0.7], 0.15, material, 0.4), lights)
    values = rgb[0][:, covered[0]]
    assert values.isfinite().all()
    assert values.min() >= 0
    assert values.mean() > 0.01


def test_a_ball_shadows_what_lies_below_it() -> None:
    # A wide disc below (a flattened ball would be another test of the rasteriser) and a ball.
    ground = ball([0, 1.3, 2.0], 1.0, Material.EYE, 0.5)
    blocker = ball([0, 0.05, 2.0], 0.12, Material.EYE, 0.5)
    lights = uniform_light()
    lights.harmonics *= 0.05
    lights.key_color += 1
    fragments = rasterize(concatenate([ground, blocker]), CAMERA[None], H, W)
    rgb, _ = draw(concatenate([ground, blocker]), lights)
    bare, _ = draw(ground, lights)
    on_ground = (fragments.face[0] >= 0) & (fragments.face[0] < len(ground.faces))
    ratio = (rgb / bare.clamp(min=1e-6))[0].mean(0)[on_ground]
    assert ratio.min() < 0.4
    assert ratio.median() > 0.95


def test_seams_between_materials_do_not_mix_their_colours() -> None:
    mesh = ball([0, 0, 0.7], 0.15, Material.EYE, 0.0)
    right = mesh.normals[:, 0] > 0
    mesh.albedo[right] = torch.tensor([0.8, 0.0, 0.0])
    mesh.albedo[~right] = torch.tensor([0.0, 0.0, 0.8])
    mesh.material[right] = int(Material.NAIL)
    # Welded corners, so that faces do span the seam.
    unique, index = torch.unique(mesh.vertices_m, dim=0, return_inverse=True)
    first = torch.zeros(len(unique), dtype=torch.int64).index_copy_(
        0, index, torch.arange(len(index))
    )
    mesh.faces = first[index[mesh.faces]]
    rgb, covered = draw(mesh, uniform_light())
    red, _, blue = rgb[0][:, covered[0]]
    assert torch.minimum(red, blue).max() < 0.3
    assert red.max() > 0.5
    assert blue.max() > 0.5


def test_occlusion_darkens_a_groove_and_nothing_flat() -> None:
    flat = torch.full((1, 64, 64), 0.6)
    focal = torch.tensor([300.0])
    assert ambient_occlusion(flat, focal).min() > 0.99
    groove = flat.clone()
    groove[:, :, 28:36] += 0.01
    sky = ambient_occlusion(groove, focal)
    assert sky.shape == (1, 32, 32)
    assert sky[0, 10:22, 15:17].max() < 0.9
    assert sky[0, 10:22, :4].min() > 0.95
    assert ambient_occlusion(torch.full((1, 9, 7), torch.inf), focal).isfinite().all()


def test_noise_has_unit_variance_and_its_gradient() -> None:
    noise = WaveNoise(0.01, 12)
    points = torch.rand(3, 20000, generator=torch.Generator().manual_seed(5))
    value, slope = noise.with_gradient(points)
    assert value.std() == pytest.approx(1, abs=0.1)
    assert torch.allclose(value, noise(points), atol=1e-4)
    points = points[:, :50].double()
    noise.vectors, noise.phases = noise.vectors.double(), noise.phases.double()
    step = torch.tensor([[1e-7], [0.0], [0.0]]).double()
    numeric = (noise(points + step) - noise(points - step)) / 2e-7
    expected = slope[0, :50] * (2 * torch.pi / noise.wavelength_m)
    assert torch.allclose(numeric.float(), expected, rtol=1e-2, atol=2)


def test_smoothed_silhouettes_keep_their_area_and_are_soft() -> None:
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing='ij')
    alpha = ((x - 40.2) ** 2 + (y - 30.4) ** 2 < 20**2).float()[None, None]
    rgb, soft = antialias(alpha.expand(1, 3, H, W) * 0.7, alpha)
    assert soft.sum() == pytest.approx(float(alpha.sum()), rel=0.01)
    assert ((soft > 0.1) & (soft < 0.9)).sum() > 80
    assert soft.max() <= 1
    # The colour under partial coverage is the surface's own, not mixed with black.
    assert torch.allclose(rgb, 0.7 * soft.expand(1, 3, H, W), atol=1e-5)


@pytest.mark.parametrize('solid', [_box, _cylinder])
def test_furniture_faces_look_outwards(solid) -> None:
    corners, normals, faces = solid(torch.device('cpu'))
    a, b, c = corners[faces].unbind(1)
    facing = torch.linalg.cross(b - a, c - a)
    assert ((facing * normals[faces].sum(1)).sum(1) > 0).all()
    assert ((facing * (a + b + c)).sum(1) > 0).all()


def test_radiance_codes_keep_sixteen_stops() -> None:
    radiance = np.geomspace(0.02, 400, 200).astype(np.float32)
    assert np.abs(decode_radiance(encode_radiance(radiance)) / radiance - 1).max() < 0.05


def test_bundled_panoramas_are_complete() -> None:
    panoramas = load_panoramas()
    assert panoramas.shape == (26, 3, 256, 512)
    assert panoramas.isfinite().all()
    assert (panoramas.mean((1, 2, 3)) > 0.2).all()


@pytest.mark.parametrize('kind', ['panorama', 'room', 'plain'])
def test_backgrounds_are_finite_and_not_all_alike(kind: str) -> None:
    weights = {'panorama': 0.0, 'room': 0.0, 'plain': 0.0} | {kind: 1.0}
    backgrounds = Backgrounds(BackgroundWeights(**weights), load_panoramas(), None)
    s = sampler(6)
    world_from_camera = sample_world_from_camera(s, 4)
    lights = room_lights(s, world_from_camera)
    cameras = CAMERA.expand(4, 3, 3)
    image = backgrounds.draw(
        backgrounds.choose(s, 4), s, world_from_camera, cameras, 95, 161, lights
    )
    assert image.shape == (4, 3, 95, 161)
    assert image.isfinite().all()
    assert image.min() >= 0
    assert image.mean((1, 2, 3)).min() > 1e-3
    assert (image[0] - image[1]).abs().mean() > 1e-3


def test_photographs_of_a_folder_become_backgrounds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no photographs'):
        PhotoFolder(tmp_path)
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 2] = 255  # red, as OpenCV orders channels
    cv2.imwrite(str(tmp_path / 'red.png'), image)
    crops = PhotoFolder(tmp_path).crops(sampler(), 3, 32, 32)
    assert torch.allclose(crops.mean((0, 2, 3)), torch.tensor([1.0, 0, 0]), atol=1e-4)
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'broken\.jpg'):
        PhotoFolder(tmp_path).crops(sampler(), 20, 32, 32)


def test_pictures_are_the_same_for_the_same_seed() -> None:
    renderer = Renderer(RenderConfig(shadow_resolution=64))
    mesh = ball([0, 0, 0.7], 0.15, Material.SKIN, 0.4)
    images = [
        renderer(mesh, CAMERA[None], H, W, torch.Generator().manual_seed(seed)).image
        for seed in (1, 1, 2)
    ]
    assert images[0].dtype == torch.uint8
    assert images[0].shape == (1, 3, H, W)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_an_empty_scene_is_a_picture_too() -> None:
    mesh = ball([0, 0, -5], 0.1, Material.SKIN, 0.4)
    output = Renderer(RenderConfig())(mesh, CAMERA[None], H, W, torch.Generator().manual_seed(0))
    assert (output.fragments.face == -1).all()
    assert output.image.float().std() > 0
