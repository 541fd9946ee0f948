"""Rotations against a reference, with the angles where formulas break: zero, pi, tiny."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from handos_model.geometry.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quaternion_xyzw,
    quaternion_xyzw_to_matrix,
)

RNG = np.random.default_rng(0)
AXES = RNG.normal(size=(200, 3))
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)
AXES[:3] = np.eye(3)
ANGLES = np.concatenate([[0, 1e-9, 1e-4, np.pi - 1e-6, np.pi - 1e-3], RNG.uniform(0, np.pi, 195)])
VECTORS = AXES * ANGLES[:, None]
VECTORS = np.concatenate([VECTORS, np.eye(3) * np.pi, np.eye(3) * (np.pi - 1e-7)])


def test_axis_angle() -> None:
    reference = Rotation.from_rotvec(VECTORS).as_matrix()
    matrices = axis_angle_to_matrix(VECTORS)
    np.testing.assert_allclose(matrices, reference, atol=1e-12)
    again = axis_angle_to_matrix(matrix_to_axis_angle(matrices))
    np.testing.assert_allclose(again, matrices, atol=1e-9)
    assert np.linalg.norm(matrix_to_axis_angle(matrices), axis=-1).max() <= np.pi + 1e-12


def test_quaternions() -> None:
    matrices = axis_angle_to_matrix(VECTORS)
    ours = matrix_to_quaternion_xyzw(matrices)
    reference = Rotation.from_matrix(matrices).as_quat()
    assert (ours[:, 3] >= 0).all()
    np.testing.assert_allclose(np.abs((ours * reference).sum(-1)), 1, atol=1e-12)
    np.testing.assert_allclose(quaternion_xyzw_to_matrix(3 * ours), matrices, atol=1e-12)


def test_shapes_are_kept() -> None:
    vectors = VECTORS[:12].reshape(3, 4, 3)
    assert axis_angle_to_matrix(vectors).shape == (3, 4, 3, 3)
    assert matrix_to_axis_angle(axis_angle_to_matrix(vectors)).shape == (3, 4, 3)
    assert matrix_to_quaternion_xyzw(np.eye(3)).tolist() == [0, 0, 0, 1]


def test_no_rotation_has_length_zero() -> None:
    with pytest.raises(ValueError, match='length zero'):
        quaternion_xyzw_to_matrix(np.zeros(4))
