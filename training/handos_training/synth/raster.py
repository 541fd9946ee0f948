"""A batched z-buffer in plain torch: triangles become row spans, spans become pixels.

With the homogeneous pixel positions q_i = K v_i of a triangle's corners, the rows of the inverse
of [q_0 q_1 q_2] are functions linear in the pixel (x, y) that equal b_i / z (Olano and Greer,
"Triangle Scan Conversion using 2D Homogeneous Coordinates", 1997). Their signs say what is inside,
their sum is 1 / z, and their ratios are the perspective-correct barycentric coordinates; nothing
has to be clipped, even where a triangle passes behind the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from handos_training.synth.mesh import SceneMesh

NEAR_M = 0.02
# Neighbouring triangles round their common edge apart by less than this, so no crack shows.
EDGE_TOLERANCE_PX = 1e-4
MAX_FRAGMENTS = 1 << 22  # at once; about 40 bytes each


@dataclass
class Fragments:
    """The nearest surface at each pixel centre; pixel (0, 0) has its centre at (0, 0)."""

    face: Tensor  # [B,H,W] int64 into the mesh's faces, -1 where there is none
    barycentric: Tensor  # [B,H,W,3] perspective-correct, zero where there is none
    depth_m: Tensor  # [B,H,W] along the optical axis, infinite where there is none


@dataclass
class _Triangles:
    """K triangles that may cover a pixel, with planes relative to their box's first pixel."""

    face: Tensor  # [K] int64 into the mesh's faces
    planes: Tensor  # [K,3,3]: b_i / z = planes[i] . (x - x0, y - y0, 1)
    box_px: Tensor  # [K,4] int64 x0, y0, x1, y1, both ends included


def rasterize(
    mesh: SceneMesh,
    camera_matrices_px: Tensor,
    height: int,
    width: int,
    cull_back_faces: bool = True,
    near_m: float = NEAR_M,
) -> Fragments:
    """Draw a batch of pinhole images, `camera_matrices_px` [B,3,3]."""
    triangles, buffer = _draw(mesh, camera_matrices_px, height, width, cull_back_faces, near_m)
    shape = (len(camera_matrices_px), height, width)
    pixel = (buffer >= 0).nonzero().squeeze(1)
    index = buffer[pixel] & 0xFFFFFFFF
    x0, y0 = triangles.box_px[index, :2].unbind(1)
    x = (pixel % width - x0).float()[:, None]
    y = (pixel // width % height - y0).float()[:, None]
    a, b, c = triangles.planes[index].unbind(2)
    weights = (a * x).addcmul_(b, y).add_(c).clamp_(min=0)
    inverse_depth = weights.sum(1)

    face = buffer.new_full((buffer.numel(),), -1)
    face[pixel] = triangles.face[index]
    barycentric = weights.new_zeros(buffer.numel(), 3)
    barycentric[pixel] = weights / inverse_depth[:, None]
    return Fragments(face.view(shape), barycentric.view(*shape, 3), _depth(buffer).view(shape))


def rasterize_depth(
    mesh: SceneMesh,
    camera_matrices_px: Tensor,
    height: int,
    width: int,
    cull_back_faces: bool = True,
    near_m: float = NEAR_M,
) -> Tensor:
    """Only the depth [B,H,W] in metres, infinite where nothing is drawn."""
    _, buffer = _draw(mesh, camera_matrices_px, height, width, cull_back_faces, near_m)
    return _depth(buffer).view(len(camera_matrices_px), height, width)


def vertex_images(mesh: SceneMesh) -> Tensor:
    """[N] int64, the image that each vertex belongs to (0 for a vertex of no face)."""
    image = mesh.faces.new_zeros(len(mesh.vertices_m))
    image[mesh.faces.T] = mesh.face_image
    return image


def _depth(buffer: Tensor) -> Tensor:
    inverse_depth = (buffer >> 32).to(torch.int32).view(torch.float32)
    return torch.where(buffer >= 0, inverse_depth.reciprocal(), torch.inf)


def _draw(
    mesh: SceneMesh, cameras: Tensor, height: int, width: int, cull_back_faces: bool, near_m: float
) -> tuple[_Triangles, Tensor]:
    """The triangles and a z-buffer [B*H*W] of keys: bits of 1 / z, then the triangle; -1 empty."""
    triangles = _project(mesh, cameras, height, width, cull_back_faces, near_m)
    buffer = torch.full(
        (len(cameras) * height * width,), -1, dtype=torch.int64, device=mesh.faces.device
    )
    image = mesh.face_image[triangles.face]
    x0, y0, x1, y1 = triangles.box_px.unbind(1)

    # Rows of the triangles, and the span of pixels of each row that is inside all half planes.
    row_count = y1 - y0 + 1
    owner, row = _expand(row_count)
    planes = triangles.planes.view(-1, 9).index_select(0, owner).view(-1, 3, 3)
    row_px = row.float()[:, None]
    slopes, offsets = planes[..., 0], planes[..., 1] * row_px + planes[..., 2]
    slope_sum, offset_sum = slopes.sum(1), offsets.sum(1)
    # The near plane is one more half plane: 1 / near - 1 / z >= 0.
    slopes = torch.cat([slopes, -slope_sum[:, None]], 1)
    offsets = torch.cat([offsets, (1 / near_m - offset_sum)[:, None]], 1)
    crossing = -offsets / slopes
    lower = torch.where(slopes > 0, crossing, -torch.inf).amax(1) - EDGE_TOLERANCE_PX
    upper = torch.where(slopes < 0, crossing, torch.inf).amin(1) + EDGE_TOLERANCE_PX
    upper[((slopes == 0) & (offsets < 0)).any(1)] = -torch.inf
    span = (x1 - x0).index_select(0, owner).float()
    first = lower.clamp_(min=0).ceil_()
    count = (torch.minimum(upper, span).floor_() - first + 1).clamp_(min=0).long()

    start_pixel = ((image * height + y0) * width + x0).index_select(0, owner)
    start_pixel += row * width + first.long()
    start_inverse_depth = offset_sum.addcmul_(slope_sum, first)

    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    cuts = torch.tensor(range(MAX_FRAGMENTS, total, MAX_FRAGMENTS), device=ends.device)
    bounds = [0, *torch.searchsorted(ends, cuts).tolist(), len(ends)]
    for begin, end in pairwise(bounds):
        part = slice(begin, end)
        source, step = _expand(count[part])
        inverse_depth = start_inverse_depth[part].index_select(0, source)
        inverse_depth.addcmul_(slope_sum[part].index_select(0, source), step.float())
        # Positive floats sort as their bits do; the tolerance may leave a value just below zero.
        key = inverse_depth.clamp_(min=1e-9).view(torch.int32).long() << 32
        key |= owner[part].index_select(0, source)
        pixel = start_pixel[part].index_select(0, source).add_(step)
        buffer.scatter_reduce_(0, pixel, key, 'amax')
    return triangles, buffer


def _expand(count: Tensor) -> tuple[Tensor, Tensor]:
    """Of items with `count` [N] parts each: the item of every part, and the part's index in it."""
    total = int(count.sum())
    index = torch.arange(len(count), device=count.device)
    owner = torch.repeat_interleave(index, count, output_size=total)
    start = count.cumsum(0) - count
    return owner, torch.arange(total, device=count.device) - start.index_select(0, owner)


def _project(
    mesh: SceneMesh, cameras: Tensor, height: int, width: int, cull_back_faces: bool, near_m: float
) -> _Triangles:
    """Keep what may cover a pixel centre, and find its planes."""
    points = _homogeneous_px(mesh, cameras)
    depth = points[:, 2]
    uv = points[:, :2] / depth[:, None].clamp(min=near_m)
    corners = uv[mesh.faces]
    low, high = corners.amin(1), corners.amax(1)
    face_depth = depth[mesh.faces]
    nearest = face_depth.amin(1)
    crosses = ((nearest <= near_m) & (face_depth.amax(1) > near_m)).nonzero().squeeze(1)
    if len(crosses):
        low[crosses], high[crosses] = _box_beyond_near(points[mesh.faces[crosses]], near_m)
    limit = torch.tensor([width - 1.0, height - 1.0], device=low.device)
    low, high = (low - EDGE_TOLERANCE_PX).ceil_(), (high + EDGE_TOLERANCE_PX).floor_()
    low, high = low.clamp_(min=0), torch.minimum(high, limit)
    keep = (high >= low).all(1) & (nearest > near_m)
    keep[crosses] = (high[crosses] >= low[crosses]).all(1)
    face = keep.nonzero().squeeze(1)

    low, high = low[face], high[face]
    q = points[mesh.faces[face]]
    # Relative to the box's first pixel, so that float32 holds small triangles far from (0, 0).
    q = torch.cat([q[..., :2] - low[:, None] * q[..., 2:], q[..., 2:]], 2)
    normals = torch.linalg.cross(q[:, [1, 2, 0]], q[:, [2, 0, 1]])
    determinant = (q[:, 0] * normals[:, 0]).sum(1)
    # An outward normal that points at the camera has a negative product with the view ray.
    facing = determinant < 0 if cull_back_faces else determinant != 0
    facing &= determinant.abs() > 1e-12
    planes = (normals / determinant[:, None, None])[facing]
    box = torch.cat([low, high], 1)[facing].long()
    return _Triangles(face[facing], planes, box)


def _homogeneous_px(mesh: SceneMesh, cameras: Tensor) -> Tensor:
    """K v of every vertex, [N,3] in pixel metres."""
    matrices = cameras[vertex_images(mesh)]
    return (matrices * mesh.vertices_m[:, None]).sum(2)


def _box_beyond_near(q: Tensor, near_m: float) -> tuple[Tensor, Tensor]:
    """Pixel box of the part of triangles [M,3,3] that is farther than the near plane."""
    following = q[:, [1, 2, 0]]
    depth, next_depth = q[..., 2], following[..., 2]
    share = (near_m - depth) / (next_depth - depth)
    cut = q + share[..., None] * (following - q)
    is_cut = (depth > near_m) != (next_depth > near_m)
    points = torch.cat([q, cut], 1)
    inside = torch.cat([depth > near_m, is_cut], 1)[..., None]
    uv = points[..., :2] / torch.cat([depth, torch.full_like(depth, near_m)], 1)[..., None]
    low = torch.where(inside, uv, torch.inf).amin(1)
    high = torch.where(inside, uv, -torch.inf).amax(1)
    return low, high
