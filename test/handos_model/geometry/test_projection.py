"""Distortion against OpenCV, and its inverse."""

import cv2
import numpy as np
import pytest

from handos_model.geometry.projection import distort, project, undistort, unproject
from handos_model.types import Camera

LENSES = {
    'plumb_bob': [-0.28, 0.09, 1e-3, -7e-4, -0.012],
    'rational_polynomial': [0.42, -2.2, 4e-4, -2e-4, 1.3, 0.31, -2.05, 1.25],
    'equidistant': [-0.02, 0.011, -0.006, 0.001],
}


def camera_of(model: str) -> Camera:
    matrix = np.array([[612.0, 0, 318.3], [0, 608.0, 236.9], [0, 0, 1]])
    return Camera(640, 480, matrix, np.array(LENSES[model]), model)  # type: ignore[arg-type]


@pytest.mark.parametrize('model', LENSES)
def test_projection_is_opencv_s(model: str) -> None:
    camera = camera_of(model)
    points = np.random.default_rng(0).uniform([-0.4, -0.3, 0.7], [0.4, 0.3, 1.5], (50, 3))
    flat = points.reshape(-1, 1, 3)
    zero = np.zeros(3)
    function = cv2.fisheye.projectPoints if model == 'equidistant' else cv2.projectPoints
    if model == 'equidistant':
        expected, _ = function(flat, zero, zero, camera.matrix_px, camera.distortion)
    else:
        expected, _ = function(flat, zero, zero, camera.matrix_px, camera.distortion)
    np.testing.assert_allclose(project(points, camera), expected.reshape(-1, 2), atol=1e-8)


@pytest.mark.parametrize('model', LENSES)
def test_undistortion_inverts_over_the_image(model: str) -> None:
    camera = camera_of(model)
    rows, columns = np.mgrid[0:480:20, 0:640:20]
    pixels = np.stack([columns, rows], axis=-1).astype(float)
    rays = unproject(pixels, camera)
    assert np.isfinite(rays).all()
    again = project(np.concatenate([rays, np.ones_like(rays[..., :1])], -1), camera)
    np.testing.assert_allclose(again, pixels, atol=1e-5)


@pytest.mark.parametrize('model', LENSES)
def test_jacobian_is_the_derivative(model: str) -> None:
    camera = camera_of(model)
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (20, 2))
    _, jacobian = distort(points, camera)
    for axis in range(2):
        step = np.zeros(2)
        step[axis] = 1e-6
        numeric = (distort(points + step, camera)[0] - distort(points - step, camera)[0]) / 2e-6
        np.testing.assert_allclose(jacobian[..., axis], numeric, atol=1e-6)


def test_pixels_beyond_the_lens_have_no_ray() -> None:
    barrel = Camera(640, 480, np.diag([300.0, 300.0, 1.0]), np.array([-0.5, 0, 0, 0, 0]))
    assert np.isnan(undistort(np.array([[3.0, 2.0]]), barrel)).all()
    fisheye = Camera(640, 480, np.eye(3), np.zeros(4), 'equidistant')
    assert np.isnan(undistort(np.array([[1.6, 0.0]]), fisheye)).all()
    np.testing.assert_allclose(undistort(np.array([[0.0, 0.0]]), fisheye), 0)


def test_points_behind_the_camera_have_no_pixel() -> None:
    assert np.isnan(project(np.array([[0.0, 0.0, -1.0]]), camera_of('plumb_bob'))).all()


def test_too_many_coefficients_are_refused() -> None:
    camera = Camera(640, 480, np.eye(3), np.full(12, 0.1), 'rational_polynomial')
    with pytest.raises(ValueError, match='8 distortion coefficients, got 12'):
        distort(np.zeros((1, 2)), camera)
