"""Rotations as matrices, axis-angle vectors and quaternions, batched."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from handos_model.types import FloatArray

Float64Array: TypeAlias = npt.NDArray[np.float64]
TINY = 1e-12


def axis_angle_to_matrix(vectors: FloatArray) -> Float64Array:
    """Rotation matrices [...,3,3] of axis times angle [...,3] (Rodrigues' formula)."""
    vectors = np.asarray(vectors, dtype=np.float64)
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack(
        [np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)], -2
    )
    # sin(a) / a and (1 - cos(a)) / a^2, which np.sinc keeps finite at zero.
    first = np.sinc(angle / np.pi)
    second = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.asarray(np.eye(3) + first * cross + second * (cross @ cross))


def matrix_to_quaternion_xyzw(rotations: FloatArray) -> Float64Array:
    """Unit quaternions [...,4] in ROS order (x, y, z, w), w >= 0, of matrices [...,3,3].

    Of Shepperd's four formulas (1978) the one with the largest divisor is taken.
    """
    r = np.asarray(rotations, dtype=np.float64)
    diagonal = np.diagonal(r, axis1=-2, axis2=-1)  # [...,3]
    trace = diagonal.sum(-1, keepdims=True)
    # The outer product of the quaternion with itself, times four, row by row.
    outer = np.empty((*r.shape[:-2], 4, 4))
    outer[..., :3, :3] = r + np.swapaxes(r, -1, -2)
    for axis in range(3):
        outer[..., axis, axis] = 1 + 2 * diagonal[..., axis] - trace[..., 0]
    w_row = np.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1
    )
    outer[..., 3, :3] = outer[..., :3, 3] = w_row
    outer[..., 3, 3] = 1 + trace[..., 0]
    best = np.diagonal(outer, axis1=-2, axis2=-1).argmax(-1)
    row = np.take_along_axis(outer, best[..., None, None], axis=-2)[..., 0, :]
    row = row / np.linalg.norm(row, axis=-1, keepdims=True).clip(TINY)
    return np.asarray(np.where(row[..., 3:] < 0, -row, row))


def quaternion_xyzw_to_matrix(quaternions: FloatArray) -> Float64Array:
    """Rotation matrices [...,3,3] of quaternions [...,4] (x, y, z, w) of any length but zero."""
    q = np.asarray(quaternions, dtype=np.float64)
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    if not (length > TINY).all():
        raise ValueError('a quaternion of length zero is no rotation')
    x, y, z, w = np.moveaxis(q / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def matrix_to_axis_angle(rotations: FloatArray) -> Float64Array:
    """Axis times angle [...,3], angle in [0, pi], of rotation matrices [...,3,3]."""
    quaternions = matrix_to_quaternion_xyzw(rotations)
    vector, w = quaternions[..., :3], quaternions[..., 3:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, w)
    scale = np.where(sine > TINY, angle / sine.clip(TINY), 2.0)
    return np.asarray(vector * scale)
