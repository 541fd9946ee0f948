"""Rotations from meshes: theta of random poses, OpenXR frames, angles checked by eye."""

import numpy as np
import pytest

from handos_model.hand.kinematics import (
    OPENXR_JOINTS,
    PoseFitter,
    openxr_joints,
)
from handos_model.hand.model import HandModel
from handos_model.hand.pose_limits import random_pose

RIGHT = HandModel.embedded()
LEFT = RIGHT.mirrored()
FITTER = PoseFitter(RIGHT)


def axis_angle_matrices(theta: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(theta.reshape(-1, 3)).as_matrix().reshape(*theta.shape, 3)


def degrees_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    trace = np.einsum('...ab,...ab->...', a, b)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def posed(side: str, seed: int, shaped: bool) -> tuple[HandModel, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    model = LEFT if side == 'left' else RIGHT
    rotations = random_pose(rng, 1, model.rotation_axes)[0]
    betas = rng.normal(size=10) if shaped else np.zeros(10)
    vertices, _ = model.pose(rotations, betas)
    return model, rotations, vertices + rng.normal(size=3)


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize('shaped', [False, True])
def test_theta_is_recovered_within_a_degree(side: str, shaped: bool) -> None:
    worst = 0.0
    for seed in range(40):
        model, rotations, vertices = posed(side, seed, shaped)
        pose = FITTER(vertices, side == 'left')
        found = axis_angle_matrices(pose.theta)
        worst = max(worst, float(degrees_between(found, rotations).max()))
        rebuilt, _ = model.pose(found, pose.betas)
        offset = rebuilt - rebuilt.mean(0) - (vertices - vertices.mean(0))
        assert np.linalg.norm(offset, axis=1).max() < 1e-3
    assert worst < 1.0


@pytest.mark.parametrize('side', ['left', 'right'])
def test_noise_of_a_network_moves_theta_a_little(side: str) -> None:
    rng = np.random.default_rng(0)
    errors = []
    for seed in range(10):
        _, rotations, vertices = posed(side, seed, True)
        pose = FITTER(vertices + rng.normal(0, 0.001, vertices.shape), side == 'left')
        errors.append(degrees_between(axis_angle_matrices(pose.theta), rotations))
    assert np.median(errors) < 2.0


@pytest.mark.parametrize('side', ['left', 'right'])
def test_openxr_frames(side: str) -> None:
    for seed in range(10):
        model, _, vertices = posed(side, seed, False)
        joints = model.joint_regressor_21 @ vertices
        pose = FITTER(vertices, side == 'left')
        positions, rotations = openxr_joints(RIGHT, pose, joints, side == 'left')
        assert positions.shape == (26, 3) and len(OPENXR_JOINTS) == 26
        np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-9)
        np.testing.assert_allclose(
            rotations @ np.swapaxes(rotations, 1, 2), np.tile(np.eye(3), (26, 1, 1)), atol=1e-9
        )
        for name, joint in (('index_proximal', 5), ('thumb_distal', 3), ('little_tip', 20)):
            assert np.allclose(positions[OPENXR_JOINTS.index(name)], joints[joint])
        # +z runs back along the bone.
        proximal = OPENXR_JOINTS.index('middle_proximal')
        bone = positions[proximal + 1] - positions[proximal]
        assert rotations[proximal, :, 2] @ bone == pytest.approx(-np.linalg.norm(bone))


@pytest.mark.parametrize('model', [RIGHT, LEFT], ids=['right', 'left'])
def test_a_flat_hand_has_its_back_up(model: HandModel) -> None:
    is_left = model is LEFT
    vertices, joints = model.pose(np.tile(np.eye(3), (16, 1, 1)))
    pose = FITTER(vertices, is_left)
    assert np.abs(pose.theta).max() < 0.01
    _, rotations = openxr_joints(RIGHT, pose, joints, is_left)
    fingers = [i for i, name in enumerate(OPENXR_JOINTS) if not name.startswith('thumb')]
    assert (rotations[fingers, 2, 1] > 0.8).all()  # +y out of the back, +z of the rest frame
    # The thumb is at +x of a left hand's palm, at -x of a right one's, as OpenXR sees it.
    palm = rotations[0]
    thumb_x = palm[:, 0] @ (joints[2] - joints[9])
    assert thumb_x > 0 if is_left else thumb_x < 0
