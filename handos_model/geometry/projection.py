"""Pinhole projection with the distortion models of `sensor_msgs/CameraInfo`, and its inverse.

Points of the camera's optical frame are divided by depth ("normalised", [...,2]), bent by the
lens, and scaled by K. The formulas are those of OpenCV's calibration and fisheye modules.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from handos_model.types import Camera, FloatArray

Float64Array: TypeAlias = npt.NDArray[np.float64]

_COEFFICIENTS = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}
_NEWTON_STEPS = 20
_TOLERANCE = 1e-9  # of a normalised coordinate: 1e-6 px at a focal length of 1000 px


def distort(points: FloatArray, camera: Camera) -> tuple[Float64Array, Float64Array]:
    """Bend normalised points [...,2] as the lens does; also its Jacobian [...,2,2].

    Raises ValueError where the camera has more coefficients than its model.
    """
    straight: Float64Array = np.asarray(points, dtype=np.float64)
    if is_pinhole(camera):
        return straight, np.broadcast_to(np.eye(2), (*straight.shape[:-1], 2, 2))
    coefficients = _coefficients(camera)
    if camera.distortion_model == 'equidistant':
        return _distort_equidistant(straight, coefficients)
    return _distort_brown(straight, coefficients)


def is_pinhole(camera: Camera) -> bool:
    """Whether the lens bends nothing; an equidistant one always does."""
    return camera.distortion_model != 'equidistant' and not camera.distortion.any()


def undistort(points: FloatArray, camera: Camera) -> Float64Array:
    """The normalised points [...,2] that `distort` maps to `points`; NaN where there are none.

    Strong lenses have no inverse far outside their image; such joints carry no information.
    """
    target: Float64Array = np.asarray(points, dtype=np.float64)
    if is_pinhole(camera):
        return np.array(target)
    coefficients = _coefficients(camera)
    if camera.distortion_model == 'equidistant':
        return _undistort_equidistant(target, coefficients)
    with np.errstate(all='ignore'):
        solution = np.array(target)
        for _ in range(_NEWTON_STEPS):
            bent, jacobian = _distort_brown(solution, coefficients)
            error = target - bent
            if np.nanmax(np.abs(error), initial=0.0) < _TOLERANCE:
                break
            solution = solution + _limit(_solve_2x2(jacobian, error), 0.5)
        bent, jacobian = _distort_brown(solution, coefficients)
        solved = np.abs(target - bent).max(axis=-1) < 100 * _TOLERANCE
        # Behind the fold of the polynomial (negative determinant) a solution is not the light's.
        solved &= np.linalg.det(jacobian) > 0
    return np.asarray(np.where(solved[..., None], solution, np.nan))


def project(points_m: FloatArray, camera: Camera) -> Float64Array:
    """Pixels [...,2] of points [...,3] in the optical frame; NaN at or behind the camera."""
    depth = np.asarray(points_m[..., 2:], dtype=np.float64)
    normalised = points_m[..., :2] / np.where(depth > 1e-6, depth, np.nan)
    return to_pixels(distort(normalised, camera)[0], camera)


def unproject(points_px: FloatArray, camera: Camera) -> Float64Array:
    """Normalised, undistorted coordinates [...,2] of pixels; NaN where the lens has no inverse."""
    matrix = np.asarray(camera.matrix_px, dtype=np.float64)
    y = (np.asarray(points_px[..., 1], dtype=np.float64) - matrix[1, 2]) / matrix[1, 1]
    x = (points_px[..., 0] - matrix[0, 2] - matrix[0, 1] * y) / matrix[0, 0]
    return undistort(np.stack([x, y], axis=-1), camera)


def to_pixels(points: FloatArray, camera: Camera) -> Float64Array:
    """K applied to (already bent) normalised points [...,2]."""
    matrix = np.asarray(camera.matrix_px, dtype=np.float64)
    pixels: Float64Array = points @ matrix[:2, :2].T + matrix[:2, 2]
    return pixels


def _coefficients(camera: Camera) -> Float64Array:
    needed = _COEFFICIENTS[camera.distortion_model]
    given = np.asarray(camera.distortion, dtype=np.float64)
    if np.any(given[needed:]):
        raise ValueError(
            f'{camera.distortion_model} has {needed} distortion coefficients, got {given.size}: '
            'recalibrate with one of plumb_bob, rational_polynomial or equidistant'
        )
    padded = np.zeros(4 if needed == 4 else 8)  # plumb_bob is rational without a denominator
    padded[: min(needed, given.size)] = given[:needed]
    return padded


def _distort_brown(
    points: Float64Array, coefficients: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Brown-Conrady with OpenCV's k1 k2 p1 p2 k3 [k4 k5 k6] (rational if there are eight)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = coefficients
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    denominator = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = numerator / denominator
    slope = (k1 + r2 * (2 * k2 + 3 * k3 * r2)) / denominator  # d radial / d r2
    slope = slope - radial * (k4 + r2 * (2 * k5 + 3 * k6 * r2)) / denominator
    bent = np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )
    mixed = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    jacobian = np.stack(
        [
            radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x,
            mixed,
            mixed,
            radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x,
        ],
        axis=-1,
    )
    return bent, jacobian.reshape(*x.shape, 2, 2)


def _equidistant_angle(
    theta: Float64Array, coefficients: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Kannala-Brandt: theta_d = theta (1 + k1 theta^2 + ... + k4 theta^8), and its slope."""
    k1, k2, k3, k4 = coefficients
    t2 = theta * theta
    bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    return bent, 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))


def _distort_equidistant(
    points: Float64Array, coefficients: Float64Array
) -> tuple[Float64Array, Float64Array]:
    radius = np.maximum(np.linalg.norm(points, axis=-1), 1e-12)
    bent, slope = _equidistant_angle(np.arctan(radius), coefficients)
    ratio = bent / radius
    unit = points / radius[..., None]
    along = slope / (1 + radius * radius) - ratio  # what the radial direction has beyond `ratio`
    jacobian = along[..., None, None] * unit[..., :, None] * unit[..., None, :]
    jacobian = jacobian + ratio[..., None, None] * np.eye(2)
    return points * ratio[..., None], jacobian


def _undistort_equidistant(target: Float64Array, coefficients: Float64Array) -> Float64Array:
    radius = np.linalg.norm(target, axis=-1)
    with np.errstate(all='ignore'):
        theta = np.minimum(radius, 1.5)
        for _ in range(_NEWTON_STEPS):
            bent, slope = _equidistant_angle(theta, coefficients)
            theta = theta + np.clip((radius - bent) / slope, -0.3, 0.3)
        bent, slope = _equidistant_angle(theta, coefficients)
        solved = (np.abs(radius - bent) < 100 * _TOLERANCE) & (slope > 0)
        solved &= (theta >= 0) & (theta < np.pi / 2 - 1e-3)
        ratio = np.where(radius > 1e-12, np.tan(theta) / np.maximum(radius, 1e-12), 1.0)
    return np.where(solved[..., None], target * ratio[..., None], np.nan)


def _solve_2x2(matrix: Float64Array, right: Float64Array) -> Float64Array:
    a, b = matrix[..., 0, 0], matrix[..., 0, 1]
    c, d = matrix[..., 1, 0], matrix[..., 1, 1]
    x = d * right[..., 0] - b * right[..., 1]
    y = a * right[..., 1] - c * right[..., 0]
    determinant = a * d - b * c
    return np.asarray(np.stack([x, y], axis=-1) / determinant[..., None])


def _limit(step: Float64Array, longest: float) -> Float64Array:
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    return np.asarray(step * np.minimum(1.0, longest / np.maximum(length, 1e-12)))
