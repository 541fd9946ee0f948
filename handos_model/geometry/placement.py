"""Hands in space: where they stand, which side they are, how they are turned (numpy).

Batched over hands: a leading N wherever a docstring has one. Vertices are in right-hand order, so
the mesh of a left hand is inside out with right-hand faces; that is how sides are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handos_model.geometry.projection import Float64Array, distort, is_pinhole, project, unproject
from handos_model.types import ROOT_JOINT, Camera, FloatArray

__all__ = [
    'Translation',
    'boundary_edges',
    'boundary_vertices',
    'depth_scale',
    'project',
    'right_probability',
    'signed_volume',
    'solve_translation',
    'unproject',
    'vertex_normals',
    'volume_and_area',
    'wrist_rotation',
]

_NEAREST_M = 0.05  # no point of a solved hand is nearer to the camera than this
_FARTHEST_M = 20.0
_NO_LENGTH_M = 1e-9
# Under it a mesh as thick as a hand (8 mm) is of its true side with probability 0.94: as often as
# nano's meshes were on photographs.
_HALF_THICKNESS_NOISE_M = 3e-3


@dataclass(frozen=True, eq=False)
class Translation:
    """Where N hands stand: root joint [N,3] in metres and its covariance [N,3,3] in m^2."""

    translation_m: Float64Array
    covariance_m2: Float64Array
    residual_px: Float64Array  # [N] root mean square of the weighted reprojection error
    solved: npt.NDArray[np.bool_]  # [N] False: too little evidence, `translation_m` is a guess


def solve_translation(
    joints_m: FloatArray,
    joints_px: FloatArray,
    confidence: FloatArray,
    camera: Camera,
    sigma_px: float = 1.0,
    steps: int = 1,
) -> Translation:
    """Place root-relative joints [N,21,3] so that they project to joints_px [N,21,2].

    Each joint i with undistorted coordinates (u, v) gives two equations linear in t,
    `t_x - u t_z = u Z_i - X_i` and `t_y - v t_z = v Z_i - Y_i`, weighted by its confidence
    [N,21] in [0,1]; Gauss-Newton `steps` on the reprojection error in pixels follow. A joint's
    pixel noise is taken as `sigma_px / sqrt(confidence)`; where the residuals say that it is more,
    they are believed, so the covariance holds under the larger of the two.

    Hands that cannot be placed (fewer than three usable joints, or a solution at or behind the
    camera) get a weak-perspective guess, a wide covariance and `solved` False.
    """
    rays = unproject(joints_px, camera)  # [N,J,2]
    joints, pixels = (np.asarray(values, dtype=np.float64) for values in (joints_m, joints_px))
    weights = np.minimum(np.maximum(confidence, 0.0, dtype=np.float64), 1.0)  # [N,J]
    if not np.isfinite(rays.sum() + joints.sum() + confidence.sum()):  # rare
        usable = np.isfinite(rays).all(-1) & np.isfinite(joints).all(-1) & np.isfinite(confidence)
        weights = np.where(usable, weights, 0.0)
        rays, joints, pixels = (
            np.where(usable[..., None], values, 0.0) for values in (rays, joints, pixels)
        )

    total = weights.sum(1)
    linear = _linear_translation(joints, rays, weights)
    in_front = _in_front(linear, joints)
    solved = in_front & ((weights > 0.01).sum(1) >= 3) & (total > 0.1)
    guess = linear if solved.all() else _weak_perspective(joints, rays, weights)
    t = np.where(in_front[:, None], linear, guess)
    for _ in range(steps):
        hessian, gradient, _ = _normal_equations(joints, pixels, weights, t, camera)
        better = t - np.linalg.solve(hessian, gradient[..., None])[..., 0]
        t = np.where(_in_front(better, joints)[:, None], better, t)

    hessian, _, squares = _normal_equations(joints, pixels, weights, t, camera)
    variance = np.maximum(sigma_px**2, squares / np.maximum(2 * total - 3, 1.0))
    covariance = np.linalg.inv(hessian) * variance[:, None, None]
    if not solved.all():
        t = np.where(solved[:, None], t, guess)
        wide = np.eye(3) * np.maximum(t[:, 2], 1.0)[:, None, None] ** 2
        covariance = np.where(solved[:, None, None], covariance, wide)
    return Translation(t, covariance, np.sqrt(squares / np.maximum(2 * total, 1e-9)), solved)


def _linear_translation(
    joints_m: Float64Array, rays: Float64Array, weights: Float64Array
) -> Float64Array:
    """Least squares of two equations a joint, in closed form: the normal matrix is an arrow."""
    w = weights[..., None]
    offset = rays * joints_m[..., 2:] - joints_m[..., :2]  # [N,J,2], the right-hand sides
    total = np.maximum(weights.sum(1), 1e-12)[:, None]
    mean_ray, mean_offset = (w * rays).sum(1) / total, (w * offset).sum(1) / total
    centred = rays - mean_ray[:, None]
    spread = (w * centred**2).sum((1, 2))
    depth = -(w * centred * (offset - mean_offset[:, None])).sum((1, 2))
    depth = depth / np.maximum(spread, 1e-15)
    return np.concatenate([mean_offset + mean_ray * depth[:, None], depth[:, None]], axis=1)


def _weak_perspective(
    joints_m: Float64Array, rays: Float64Array, weights: Float64Array
) -> Float64Array:
    """Depth from the ratio of spreads: never negative, right to some 10 % at arm's length."""
    w = weights[..., None]
    total = np.maximum(weights.sum(1), 1e-12)[:, None]
    mean_m, mean_ray = (w * joints_m).sum(1) / total, (w * rays).sum(1) / total
    spread_m = (w * (joints_m - mean_m[:, None])[..., :2] ** 2).sum((1, 2))
    spread_ray = (w * (rays - mean_ray[:, None]) ** 2).sum((1, 2))
    depth = np.sqrt(spread_m / np.maximum(spread_ray, 1e-12)) - mean_m[:, 2]
    nearest = _NEAREST_M - joints_m[..., 2].min(1) + 1e-3
    depth = np.clip(depth, nearest, _FARTHEST_M)
    lateral = mean_ray * (depth + mean_m[:, 2])[:, None] - mean_m[:, :2]
    return np.concatenate([lateral, depth[:, None]], axis=1)


def _in_front(t: Float64Array, joints_m: Float64Array) -> npt.NDArray[np.bool_]:
    nearest = joints_m[..., 2].min(1) + t[:, 2]
    inside = (nearest > _NEAREST_M) & (t[:, 2] < 5 * _FARTHEST_M)
    return np.asarray(np.isfinite(t).all(1) & inside)


def _normal_equations(
    joints_m: Float64Array,
    pixels: Float64Array,
    weights: Float64Array,
    t: Float64Array,
    camera: Camera,
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Hessian [N,3,3], gradient [N,3] and weighted squares [N] of the reprojection error.

    The Hessian is kept invertible where there is no evidence. A pixel is K l(n), with the lens l
    and the normalised point n, whose derivative by t is (I | -n) / Z.
    """
    N, J = weights.shape
    points = joints_m + t[:, None]
    inverse_depth = 1.0 / np.maximum(points[..., 2:], 1e-3)
    normalised = points[..., :2] * inverse_depth
    matrix = camera.matrix_px[:2, :2]
    # The Jacobian of all joints, and in its last column the errors: one product gives the rest.
    rows = np.empty((N, J, 2, 4))
    if is_pinhole(camera):
        bent = normalised @ matrix.T
        along = bent
        rows[..., :2] = inverse_depth[..., None] * matrix
    else:
        lens_bent, lens = distort(normalised, camera)
        bent, slope = lens_bent @ matrix.T, matrix @ lens
        along = (slope @ normalised[..., None])[..., 0]
        rows[..., :2] = inverse_depth[..., None] * slope
    np.multiply(along, -inverse_depth, out=rows[..., 2])
    np.subtract(bent + camera.matrix_px[:2, 2], pixels, out=rows[..., 3])
    weighted = (rows * weights[..., None, None]).reshape(N, 2 * J, 4)
    products = weighted.transpose(0, 2, 1) @ rows.reshape(N, 2 * J, 4)
    return products[:, :3, :3] + 1e-9 * np.eye(3), products[:, :3, 3], products[:, 3, 3]


def depth_scale(
    vertices_m: FloatArray, faces: npt.NDArray[np.int64], depth_m: FloatArray, camera: Camera
) -> tuple[float, float]:
    """How much farther a hand is than predicted, from a depth image [H,W] (NaN or 0 = none).

    The ratio of measured to predicted depth, median over the vertices [V,3] that face the camera;
    a hand scaled by it about the camera keeps its pixels. Also its standard deviation, taken as
    the robust spread of the ratios (their errors go together, so more points do not sharpen it).
    Returns (1, inf) where fewer than 30 points agree or the ratio is outside [0.6, 1.6], which is
    an occluder or the background, not the hand.
    """
    towards = (vertex_normals(vertices_m, faces) * vertices_m).sum(-1)
    if signed_volume(vertices_m[None], faces, boundary_vertices(faces))[0] < 0:
        towards = -towards
    front = np.asarray(vertices_m, dtype=np.float64)[towards < 0]
    pixels = project(front, camera)
    height, width = depth_m.shape
    with np.errstate(invalid='ignore'):
        column, row = np.rint(np.nan_to_num(pixels, nan=-1e6)).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    ratios = depth_m[row[inside], column[inside]] / front[inside, 2]
    ratios = ratios[np.isfinite(ratios) & (ratios > 0.3) & (ratios < 3.0)]
    for _ in range(3):  # the points of whatever stands behind the fingers drop out
        if len(ratios) < 30:
            return 1.0, float('inf')
        centre = np.median(ratios)
        spread = 1.4826 * np.median(np.abs(ratios - centre))
        ratios = ratios[np.abs(ratios - centre) <= np.maximum(3 * spread, 0.01)]
    scale = float(np.median(ratios))
    if not 0.6 <= scale <= 1.6:
        return 1.0, float('inf')
    return scale, max(float(spread), 0.002)


def boundary_edges(faces: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Directed edges [E,2] of a mesh that only one face has: the rim of the wrist."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = int(faces.max()) + 1
    keys, opposite = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    return np.asarray(edges[~np.isin(keys, opposite)])


def boundary_vertices(faces: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The vertices [E] at which the boundary edges start."""
    return boundary_edges(faces)[:, 0]


def signed_volume(
    vertices_m: FloatArray, faces: npt.NDArray[np.int64], boundary: npt.NDArray[np.int64]
) -> Float64Array:
    """Volume [N] in m^3 of meshes [N,V,3], positive where normals (b-a)x(c-a) point outwards.

    The wrist is capped by a fan from the middle of its `boundary`; with that point as the origin
    the fan's own volume is zero.
    """
    return volume_and_area(vertices_m, faces, boundary)[0]


def volume_and_area(
    vertices_m: FloatArray, faces: npt.NDArray[np.int64], boundary: npt.NDArray[np.int64]
) -> tuple[Float64Array, Float64Array]:
    """Signed volume [N] in m^3, as `signed_volume`, and area [N] in m^2, of meshes [N,V,3]."""
    # Coordinates first: every operation then runs over contiguous memory.
    xyz = np.asarray(vertices_m, dtype=np.float64).transpose(2, 0, 1)  # [3,N,V]
    if len(boundary):
        xyz = xyz - xyz.take(boundary, axis=2).mean(2, keepdims=True)
    a, b, c = (xyz.take(faces[:, corner], axis=2) for corner in range(3))
    b -= a
    c -= a
    nx, ny, nz = b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]
    area = np.sqrt(nx * nx + ny * ny + nz * nz).sum(1) / 2  # normals are twice the area long
    volume = (a[0] * nx + a[1] * ny + a[2] * nz).sum(1) / 6
    return np.asarray(volume), np.asarray(area)


def _cross(a: Float64Array, b: Float64Array) -> Float64Array:
    """np.cross without its generality, at a third of its time."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    result = np.empty_like(a)
    result[..., 0] = ay * bz - az * by
    result[..., 1] = az * bx - ax * bz
    result[..., 2] = ax * by - ay * bx
    return result


def right_probability(
    vertices_m: FloatArray, faces: npt.NDArray[np.int64], boundary: npt.NDArray[np.int64]
) -> Float64Array:
    """Probability [N] that meshes [N,V,3] are right hands, from their orientation alone.

    Volume over area is a signed half thickness: about +8 mm for a right hand, -8 mm for a left
    one, and 0 for a mesh that collapsed to a sheet or a point because the network could not
    decide. It is weighed against 3 mm of noise in a logistic function, so the probability is
    0.94 for a proper hand and tends to 0.5 as the mesh collapses.
    """
    volume, area = volume_and_area(vertices_m, faces, boundary)
    half_thickness = np.where(area > 1e-9, volume / np.maximum(area, 1e-9), 0.0)
    return np.asarray(1.0 / (1.0 + np.exp(-half_thickness / _HALF_THICKNESS_NOISE_M)))


def agree_on_sides(
    vertices_m: FloatArray,
    joints_m: FloatArray,
    told_right: FloatArray,
    faces: npt.NDArray[np.int64],
    boundary: npt.NDArray[np.int64],
) -> tuple[Float64Array, FloatArray, FloatArray]:
    """Side and shape of hands [N,V,3], [N,J,3] from the mesh and from `told_right` [N] in [0,1].

    Returns the probability [N] of a right hand, both opinions taken as independent, and vertices
    and joints that are of the likelier side. What looks like a left hand seen from its back looks
    like a right one seen from its palm: so a mesh that is outvoted is mirrored in depth about its
    root, which leaves it where it is in the image under weak perspective.
    """
    told = np.clip(np.asarray(told_right, np.float64), 1e-6, 1 - 1e-6)
    of_mesh = right_probability(vertices_m, faces, boundary)
    odds = of_mesh / np.maximum(1 - of_mesh, 1e-12) * (told / (1 - told))
    right = odds / (1 + odds)
    mirror = np.ones((len(right), 1, 3), np.float32)
    mirror[(right >= 0.5) != (of_mesh >= 0.5), 0, 2] = -1
    return right, vertices_m * mirror, joints_m * mirror


def vertex_normals(vertices_m: FloatArray, faces: npt.NDArray[np.int64]) -> Float64Array:
    """Unit normals [V,3] of one mesh [V,3], weighted by area."""
    vertices = np.asarray(vertices_m, dtype=np.float64)
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    face_normals = _cross(b - a, c - a)
    corners = faces.reshape(-1)
    repeated = np.repeat(face_normals, 3, axis=0)
    normals = np.stack(
        [np.bincount(corners, repeated[:, axis], len(vertices)) for axis in range(3)], axis=-1
    )
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-15))


def wrist_rotation(joints_m: FloatArray, is_right: npt.NDArray[np.bool_]) -> Float64Array:
    """Axes of the hand [N,3,3] as columns in the frame of the joints [N,21,3].

    x points from the wrist to the middle MCP, z out of the back of the hand, y completes the
    right-handed frame (towards the thumb of a right hand, away from the thumb of a left one).
    """
    joints = np.asarray(joints_m, dtype=np.float64)
    axes = np.empty((len(joints), 3, 3))
    forward, length = _unit(joints[:, ROOT_JOINT] - joints[:, 0])
    if (length < _NO_LENGTH_M).any():
        forward = np.where(length < _NO_LENGTH_M, np.array([1.0, 0.0, 0.0]), forward)
    across = joints[:, 5] - joints[:, 17]
    y, length = _unit(across - (across * forward).sum(-1, keepdims=True) * forward)
    y = np.where(np.asarray(is_right)[:, None], y, -y)
    if (length < _NO_LENGTH_M).any():
        # Joints in one point or line leave the turn about x open: any axis across it will do.
        spare = np.eye(3)[np.abs(forward).argmin(-1)]
        spare, _ = _unit(spare - (spare * forward).sum(-1, keepdims=True) * forward)
        y = np.where(length < _NO_LENGTH_M, spare, y)
    axes[..., 0], axes[..., 1], axes[..., 2] = forward, y, _cross(forward, y)
    return axes


def _unit(vectors: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Vectors [N,3] of length 1, and how long they were [N,1]."""
    length = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    return vectors / np.maximum(length, _NO_LENGTH_M), length
