"""Pinch and flexion of the posed hand model."""

import numpy as np
import pytest

from handos_model.hand.model import HandModel
from handos_model.hand.pose_limits import rotations_from_angles
from handos_ros.adapters.grasp import flexion_angles_rad, pinch_distances_m

RIGHT = HandModel.embedded()


def test_flexion_and_pinch() -> None:
    angles = np.zeros((16, 3))
    _, joints = RIGHT.pose(rotations_from_angles(angles, RIGHT.rotation_axes))
    angles[2, 0] = np.pi / 2  # index PIP
    _, bent = RIGHT.pose(rotations_from_angles(angles, RIGHT.rotation_axes))
    change = np.degrees(flexion_angles_rad(bent) - flexion_angles_rad(joints))
    assert change[1, 1] == pytest.approx(90, abs=12)
    assert np.abs(np.delete(change.reshape(-1), 4)).max() < 12
    moved = joints.copy()
    moved[8] = moved[4]
    assert pinch_distances_m(moved)[0] == 0
    assert (pinch_distances_m(joints) > 0.03).all()


def test_degenerate_joints_give_finite_angles() -> None:
    assert np.isfinite(flexion_angles_rad(np.zeros((21, 3)))).all()
