"""The rasteriser against geometry that is known, and against one that shares no code with it."""

import numpy as np
import pytest
import torch

from handos_training.synth.render.mesh import Material, SceneMesh
from handos_training.synth.render.raster import rasterize, rasterize_depth

CAMERA = torch.tensor([[100.0, 0, 31.5], [0, 110.0, 23.5], [0, 0, 1]])
H, W = 48, 64


def scene(vertices: torch.Tensor, faces: torch.Tensor, image: torch.Tensor | None = None):
    count = len(vertices)
    return SceneMesh(
        vertices_m=vertices.float(),
        normals=torch.nn.functional.normalize(vertices.float(), dim=1),
        albedo=torch.full((count, 3), 0.5),
        texture_m=vertices.float(),
        material=torch.full((count,), int(Material.RIGID)),
        gloss=torch.zeros(count),
        faces=faces,
        face_image=torch.zeros(len(faces), dtype=torch.int64) if image is None else image,
        face_part=torch.ones(len(faces), dtype=torch.int64),
    )


def sphere(center: list[float], radius: float, rings: int = 12, sectors: int = 20):
    """A closed sphere with outward faces."""
    theta = torch.linspace(0, torch.pi, rings + 1)
    phi = torch.arange(sectors) * 2 * torch.pi / sectors
    grid = torch.stack(
        [
            theta.sin()[:, None] * phi.cos(),
            theta.cos()[:, None].expand(-1, sectors),
            theta.sin()[:, None] * phi.sin(),
        ],
        2,
    ).reshape(-1, 3)
    i, j = torch.meshgrid(torch.arange(rings), torch.arange(sectors), indexing='ij')
    a, b = i * sectors + j, i * sectors + (j + 1) % sectors
    faces = torch.cat(
        [torch.stack([a, b, a + sectors], -1), torch.stack([b, b + sectors, a + sectors], -1)]
    ).reshape(-1, 3)
    return grid * radius + torch.tensor(center), faces


def numpy_depth(vertices: np.ndarray, faces: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Nearest depth a pixel by 2D edge functions in float64, one triangle after the other."""
    depth = np.full((H, W), np.inf)
    y, x = np.mgrid[0:H, 0:W].astype(np.float64)
    p = vertices @ camera.T
    uv = p[:, :2] / p[:, 2:]
    for face in faces:
        (ax, ay), (bx, by), (cx, cy) = uv[face]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0:
            continue
        w0 = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
        w1 = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
        w2 = 1 - w0 - w1
        inside = (w0 >= 0) & (w1 >= 0) & (w2 >= 0)
        z = 1 / np.where(inside, (np.stack([w0, w1, w2], -1) / p[face, 2]).sum(-1), 1)
        depth = np.where(inside & (z < depth), z, depth)
    return depth


def test_triangle_covers_exactly_the_pixel_centres_inside_it() -> None:
    # At depth 1 with corners on pixels (10.5, 5.5), (10.5, 25.5), (40.5, 5.5).
    pixels = torch.tensor([[10.5, 5.5, 1], [10.5, 25.5, 1], [40.5, 5.5, 1]])
    vertices = pixels @ torch.linalg.inv(CAMERA).T
    result = rasterize(scene(vertices, torch.tensor([[0, 1, 2]])), CAMERA[None], H, W)
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing='ij')
    expected = (x > 10.5) & (y > 5.5) & ((x - 10.5) / 30 + (y - 5.5) / 20 < 1)
    assert torch.equal(result.face[0] >= 0, expected)
    assert result.depth_m[0][expected].sub(1).abs().max() < 1e-5
    assert result.depth_m[0][~expected].isinf().all()
    b1 = (y - 5.5) / 20
    assert (result.barycentric[0, ..., 1] - b1)[expected].abs().max() < 1e-4


def test_barycentrics_are_perspective_correct() -> None:
    vertices = torch.tensor([[-0.2, -0.1, 0.5], [-0.1, 0.3, 1.0], [1.0, -0.2, 3.0]])
    result = rasterize(scene(vertices, torch.tensor([[0, 1, 2]])), CAMERA[None], H, W)
    hit = result.face[0] >= 0
    assert hit.sum() > 200
    points = result.barycentric[0][hit] @ vertices
    projected = points @ CAMERA.T
    y, x = hit.nonzero().unbind(1)
    expected = torch.stack([x, y], 1).float()
    assert (projected[:, :2] / projected[:, 2:] - expected).abs().max() < 1e-2
    assert (points[:, 2] - result.depth_m[0][hit]).abs().max() < 1e-5


def test_agrees_with_an_independent_rasteriser() -> None:
    intersection = union = 0
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        parts, faces, offset = [], [], 0
        for _ in range(4):
            center = [rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), rng.uniform(0.5, 1.2)]
            v, f = sphere(center, rng.uniform(0.03, 0.2))
            parts.append(v)
            faces.append(f + offset)
            offset += len(v)
        vertices, face = torch.cat(parts), torch.cat(faces)
        ours = rasterize_depth(scene(vertices, face), CAMERA[None], H, W)[0].numpy()
        theirs = numpy_depth(vertices.double().numpy(), face.numpy(), CAMERA.double().numpy())
        a, b = np.isfinite(ours), np.isfinite(theirs)
        intersection += (a & b).sum()
        union += (a | b).sum()
        errors.append(np.abs(ours[a & b] - theirs[a & b]))
    assert intersection / union >= 0.999
    assert np.quantile(np.concatenate(errors), 0.99) < 1e-5


def test_images_of_a_batch_do_not_mix() -> None:
    a, fa = sphere([0, 0, 1], 0.1)
    b, fb = sphere([0.1, 0.05, 0.8], 0.15)
    image = torch.cat([torch.zeros(len(fa)), torch.ones(len(fb))]).long()
    both = scene(torch.cat([a, b]), torch.cat([fa, fb + len(a)]), image)
    cameras = torch.stack([CAMERA, CAMERA * torch.tensor([[1.3], [1.3], [1.0]])])
    depth = rasterize_depth(both, cameras, H, W)
    assert torch.equal(depth[0], rasterize_depth(scene(a, fa), cameras[:1], H, W)[0])
    assert torch.equal(depth[1], rasterize_depth(scene(b, fb), cameras[1:], H, W)[0])


def test_closed_surface_has_no_cracks_and_back_faces_do_not_show() -> None:
    vertices, faces = sphere([0, 0, 1], 0.15, 40, 60)
    culled = rasterize(scene(vertices, faces), CAMERA[None], H, W)
    whole = rasterize(scene(vertices, faces), CAMERA[None], H, W, cull_back_faces=False)
    assert torch.equal(culled.face, whole.face)
    assert culled.depth_m[culled.face >= 0].max() < 1.0
    inside_out = rasterize(scene(vertices, faces.flip(1)), CAMERA[None], H, W)
    assert inside_out.depth_m[inside_out.face >= 0].min() > 0.98


def test_triangle_through_the_camera_plane_is_drawn_where_it_is_in_front() -> None:
    # A floor 0.1 m below the camera from behind it to 5 m in front; wound to face up (y down).
    corners = torch.tensor([[-50.0, 0.1, -5], [50, 0.1, -5], [50, 0.1, 5], [-50, 0.1, 5]])
    floor = scene(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    depth = rasterize_depth(floor, CAMERA[None], H, W, cull_back_faces=False)[0]
    y = torch.arange(H)
    expected = 110 * 0.1 / (y - 23.5)
    seen = (expected > 0) & (expected < 5)
    assert depth[~seen].isinf().all()
    assert (depth[seen] / expected[seen, None] - 1).abs().max() < 1e-3


@pytest.mark.parametrize('depth_m', [-1.0, 0.01])
def test_nothing_behind_the_near_plane_is_drawn(depth_m: float) -> None:
    vertices, faces = sphere([0, 0, depth_m], 0.005)
    result = rasterize(scene(vertices, faces), CAMERA[None], H, W, cull_back_faces=False)
    assert (result.face == -1).all()


def test_empty_mesh_draws_nothing() -> None:
    vertices, faces = sphere([0, 0, 1], 0.1)
    result = rasterize(scene(vertices, faces[:0]), CAMERA[None], H, W)
    assert (result.face == -1).all()
    assert (result.barycentric == 0).all()


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = sphere([0.05, 0, 0.6], 0.15)
    whole = rasterize(scene(vertices, faces), CAMERA[None], H, W)
    monkeypatch.setattr('handos_training.synth.render.raster.MAX_FRAGMENTS', 100)
    chunked = rasterize(scene(vertices, faces), CAMERA[None], H, W)
    assert torch.equal(whole.face, chunked.face)
    assert torch.equal(whole.barycentric, chunked.barycentric)
