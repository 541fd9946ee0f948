"""A batched z-buffer in plain torch: triangles become row spans, spans become pixels.

With the homogeneous pixel positions q_i = K v_i of a triangle's corners, the rows of the inverse
of [q_0 q_1 q_2] are functions linear in the pixel (x, y) that equal b_i / z (Olano and Greer,
"Triangle Scan Conversion using 2D Homogeneous Coordinates", 1997). Their signs say what is inside,
their sum is 1 / z, and their ratios are the perspective-correct barycentric coordinates; nothing
has to be clipped, even where a triangle passes behind the camera.

Inside, all arrays are channel-first, so that operations run along contiguous triangles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from handos_training.synth.render.mesh import SceneMesh
from handos_training.synth.render.pixels import transform

NEAR_M = 0.02
# Neighbouring triangles round their common edge apart by less than this, so no crack shows.
EDGE_TOLERANCE_PX = 1e-4
MAX_FRAGMENTS = 1 << 22  # at once; about 40 bytes each


@dataclass
class Fragments:
    """The nearest surface at each pixel centre; pixel (0, 0) has its centre at (0, 0)."""

    face: Tensor  # [B,H,W] int64 into the mesh's faces, -1 where there is none
    depth_m: Tensor  # [B,H,W] along the optical axis, infinite where there is none
    covered: Tensor  # [P] int64, the pixels of the flattened batch where there is one, ascending
    weights: Tensor  # [P,3] their perspective-correct barycentric coordinates

    @property
    def barycentric(self) -> Tensor:
        """[B,H,W,3], zero where there is no surface."""
        dense = self.weights.new_zeros(self.face.numel(), 3)
        dense[self.covered] = self.weights
        return dense.view(*self.face.shape, 3)


@dataclass
class _Triangles:
    """K triangles that may cover a pixel, with planes relative to their box's first pixel."""

    face: Tensor  # [K] int64 into the mesh's faces
    planes: Tensor  # [9,K] a_i, b_i, c_i: (barycentric i) / z = a_i (x - x0) + b_i (y - y0) + c_i
    box_px: Tensor  # [4,K] int64 x0, y0, x1, y1, both ends included
    near_m: float | None  # set where a triangle passes through the near plane


@dataclass
class _Spans:
    """S runs of pixels along a row, each within one triangle."""

    triangle: Tensor  # [S] int64
    pixel: Tensor  # [S] int64, the first one in the flattened batch
    count: Tensor  # [S] int64
    inverse_depth: Tensor  # [S] 1 / z at the first pixel
    step: Tensor  # [S] its change from pixel to pixel


def rasterize(
    mesh: SceneMesh,
    camera_matrices_px: Tensor,
    height: int,
    width: int,
    cull_back_faces: bool = True,
    near_m: float = NEAR_M,
) -> Fragments:
    """Draw a batch of pinhole images, `camera_matrices_px` [B,3,3] with no skew."""
    shape = (len(camera_matrices_px), height, width)
    triangles = _project(mesh, camera_matrices_px, height, width, cull_back_faces, near_m)
    spans = _spans(triangles, mesh.face_image, height, width)
    # A key is the bits of 1 / z (positive floats sort as their bits do), then the triangle.
    keys = mesh.faces.new_full((shape[0] * height * width,), -1)
    for span, pixel, inverse_depth in _fragments(spans):
        key = inverse_depth.view(torch.int32).long().bitwise_left_shift_(32)
        key |= spans.triangle.index_select(0, span)
        keys.scatter_reduce_(0, pixel, key, 'amax')

    pixel = (keys >= 0).nonzero().squeeze(1)
    key = keys.index_select(0, pixel)
    triangle = key & 0xFFFFFFFF
    depth = (key >> 32).int().view(torch.float32).reciprocal_()
    x0, y0 = triangles.box_px[:2].index_select(1, triangle)
    short = pixel.int()  # divides twice as fast
    x, y = (short % width - x0).float(), (short // width % height - y0).float()
    a, b, c = triangles.planes.index_select(1, triangle).view(3, 3, -1)
    weights = c.addcmul_(a, x).addcmul_(b, y).clamp_(min=0)
    weights /= weights.sum(0)

    face = keys.fill_(-1)
    face.scatter_(0, pixel, triangles.face.index_select(0, triangle))
    depth_m = weights.new_full((len(keys),), torch.inf)
    depth_m.scatter_(0, pixel, depth)
    return Fragments(face.view(shape), depth_m.view(shape), pixel, weights.T.contiguous())


def rasterize_depth(
    mesh: SceneMesh,
    camera_matrices_px: Tensor,
    height: int,
    width: int,
    cull_back_faces: bool = True,
    near_m: float = NEAR_M,
) -> Tensor:
    """Only the depth [B,H,W] in metres, infinite where nothing is drawn."""
    B = len(camera_matrices_px)
    triangles = _project(mesh, camera_matrices_px, height, width, cull_back_faces, near_m)
    nearest = mesh.vertices_m.new_zeros(B * height * width)
    for _, pixel, inverse_depth in _fragments(_spans(triangles, mesh.face_image, height, width)):
        nearest.scatter_reduce_(0, pixel, inverse_depth, 'amax')
    return nearest.reciprocal_().view(B, height, width)


def vertex_images(mesh: SceneMesh) -> Tensor:
    """[N] int64, the image that each vertex belongs to (0 for a vertex of no face)."""
    if mesh.vertex_image is not None:
        return mesh.vertex_image
    image = mesh.faces.new_zeros(len(mesh.vertices_m))
    image[mesh.faces] = mesh.face_image[:, None].expand(-1, 3)
    return image


def _project(
    mesh: SceneMesh, cameras: Tensor, height: int, width: int, cull_back_faces: bool, near_m: float
) -> _Triangles:
    """Keep the triangles that may cover a pixel centre, and find their planes."""
    points = transform(cameras, mesh.vertices_m.T, vertex_images(mesh))
    depth = points[2]
    seen = points[:2] / depth.clamp(min=near_m)
    corners = mesh.faces.T.contiguous()
    u, v, z = (_corners(channel, corners) for channel in (*seen, depth))
    low, high = torch.stack([_least(u), _least(v)]), torch.stack([_most(u), _most(v)])
    nearest = _least(z)
    # The sign of the area on screen says which side is seen, where all corners are in front.
    area = (u[1] - u[0]) * (v[2] - v[0]) - (v[1] - v[0]) * (u[2] - u[0])
    keep = nearest > near_m
    keep &= area < 0 if cull_back_faces else area != 0
    crosses = ((nearest <= near_m) & (_most(z) > near_m)).nonzero().squeeze(1)
    if len(crosses):
        keep[crosses] = True
        low[:, crosses], high[:, crosses] = _box_beyond_near(points.T[mesh.faces[crosses]], near_m)
    limit = torch.tensor([[width - 1.0], [height - 1.0]], device=low.device)
    low = low.sub_(EDGE_TOLERANCE_PX).ceil_().clamp_(min=0)
    high = torch.minimum(high.add_(EDGE_TOLERANCE_PX).floor_(), limit)
    keep &= (low[0] <= high[0]) & (low[1] <= high[1])
    face = keep.nonzero().squeeze(1)

    box = torch.cat([low, high]).index_select(1, face)
    corners = corners.index_select(1, face)
    x, y, z = (_corners(channel, corners) for channel in points)
    # Relative to the box's first pixel, so that float32 holds small triangles far from (0, 0).
    x, y = x - box[0] * z, y - box[1] * z
    after, before = [1, 2, 0], [2, 0, 1]
    normals = torch.stack(
        [
            y[after] * z[before] - z[after] * y[before],
            z[after] * x[before] - x[after] * z[before],
            x[after] * y[before] - y[after] * x[before],
        ]
    )
    determinant = x[0] * normals[0, 0] + y[0] * normals[1, 0] + z[0] * normals[2, 0]
    planes = (normals / determinant).view(9, -1)
    sound = determinant.abs() > 1e-12
    if cull_back_faces:
        # An outward normal that points at the camera has a negative product with the view ray.
        sound &= determinant < 0
    if not sound.all():
        index = sound.nonzero().squeeze(1)
        face, planes, box = face[index], planes[:, index], box[:, index]
    return _Triangles(face, planes, box.long(), near_m if len(crosses) else None)


def _spans(triangles: _Triangles, face_image: Tensor, height: int, width: int) -> _Spans:
    """Cut the triangles into rows, and each row down to the pixels inside all half planes."""
    x0, y0, x1, y1 = triangles.box_px
    owner, row = _expand(y1 - y0 + 1)
    a, b, c = triangles.planes.index_select(1, owner).view(3, 3, -1)
    offsets = c.addcmul_(b, row.float())
    slope_sum, offset_sum = a[0] + a[1] + a[2], offsets[0] + offsets[1] + offsets[2]
    half_planes = [(a[i], offsets[i]) for i in range(3)]
    if triangles.near_m is not None:
        half_planes.append((-slope_sum, 1 / triangles.near_m - offset_sum))  # 1 / near >= 1 / z
    first = torch.zeros_like(slope_sum)
    last = (x1 - x0).float().index_select(0, owner)
    for slope, offset in half_planes:
        # A level half plane is all or nothing: an almost level one does the same.
        crossing = -offset / torch.where(slope.abs() < 1e-20, 1e-20, slope)
        rises = slope >= 0
        first = torch.maximum(first, torch.where(rises, crossing - EDGE_TOLERANCE_PX, 0))
        last = torch.minimum(last, torch.where(rises, torch.inf, crossing + EDGE_TOLERANCE_PX))
    first = first.ceil_()
    inside = (last.floor_() >= first).nonzero().squeeze(1)

    owner, row, first = (x.index_select(0, inside) for x in (owner, row, first))
    start = (face_image[triangles.face] * height + y0) * width + x0
    pixel = row.mul_(width).add_(first.long()).add_(start.index_select(0, owner))
    count = (last.index_select(0, inside) - first).long().add_(1)
    step = slope_sum.index_select(0, inside)
    inverse_depth = offset_sum.index_select(0, inside).addcmul_(step, first)
    return _Spans(owner, pixel, count, inverse_depth, step)


def _fragments(spans: _Spans) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Span, pixel and 1 / z of all fragments, in pieces that fit in memory."""
    ends = spans.count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    cuts = torch.tensor(range(MAX_FRAGMENTS, total, MAX_FRAGMENTS), device=ends.device)
    bounds = [0, *torch.searchsorted(ends, cuts).tolist(), len(ends)]
    for begin, end in pairwise(bounds):
        span, index = _expand(spans.count[begin:end])
        pixel = spans.pixel[begin:end].index_select(0, span).add_(index)
        inverse_depth = spans.inverse_depth[begin:end].index_select(0, span)
        inverse_depth.addcmul_(spans.step[begin:end].index_select(0, span), index.float())
        # The tolerance may leave a value just below zero.
        yield span + begin, pixel, inverse_depth.clamp_(min=1e-9)


def _expand(count: Tensor) -> tuple[Tensor, Tensor]:
    """Of items with `count` [N] parts each: the item of every part, and the part's index in it."""
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    items = torch.arange(len(count), device=count.device)
    owner = torch.repeat_interleave(items, count, output_size=total)
    starts = (ends - count).index_select(0, owner)
    return owner, torch.arange(total, device=count.device).sub_(starts)


def _corners(values: Tensor, corners: Tensor) -> Tensor:
    """[3,F] of vertex values [N] at corners [3,F]."""
    return values.index_select(0, corners.view(-1)).view(3, -1)


def _least(x: Tensor) -> Tensor:
    return torch.minimum(torch.minimum(x[0], x[1]), x[2])


def _most(x: Tensor) -> Tensor:
    return torch.maximum(torch.maximum(x[0], x[1]), x[2])


def _box_beyond_near(q: Tensor, near_m: float) -> tuple[Tensor, Tensor]:
    """Pixel box, two of [2,M], of the part of triangles [M,3,3] beyond the near plane."""
    following = q[:, [1, 2, 0]]
    depth, next_depth = q[..., 2], following[..., 2]
    share = (near_m - depth) / (next_depth - depth)
    cut = q + share[..., None] * (following - q)
    is_cut = (depth > near_m) != (next_depth > near_m)
    points = torch.cat([q, cut], 1)
    inside = torch.cat([depth > near_m, is_cut], 1)[..., None]
    seen = points[..., :2] / torch.cat([depth, torch.full_like(depth, near_m)], 1)[..., None]
    low = torch.where(inside, seen, torch.inf).amin(1)
    high = torch.where(inside, seen, -torch.inf).amax(1)
    return low.T, high.T
