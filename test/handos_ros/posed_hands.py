"""Hands of the embedded model before a camera, with everything that a message carries."""

from __future__ import annotations

import numpy as np
from fakes import make_hand

from handos_model.geometry.placement import wrist_rotation
from handos_model.geometry.projection import project
from handos_model.geometry.rotations import axis_angle_to_matrix
from handos_model.hand.model import HandModel
from handos_model.types import Camera, Hand, Side

CAMERA = Camera(640, 480, np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))
# Fingers up, the palm towards the camera.
UPRIGHT = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])


def posed_hand(
    side: Side = 'right',
    *,
    flexion_rad: float = 0.3,
    at_m: tuple[float, float, float] = (0.0, 0.0, 0.5),
    turn: np.ndarray | None = None,
    hand_id: int = 0,
) -> Hand:
    """Every finger joint bent by `flexion_rad`; a left hand is the mirror image.

    `turn` [3,3] turns the upright right hand about its wrist.
    """
    model = HandModel.embedded()
    rotations = axis_angle_to_matrix(flexion_rad * model.rotation_axes[:, 0])
    rotations[0] = np.eye(3)
    _, rest_m = model.pose(rotations)
    axes = wrist_rotation(rest_m[None], np.array([True]))[0]
    turn = np.eye(3) if turn is None else turn
    rotations[0] = turn @ UPRIGHT @ axes.T
    vertices_m, joints_m = model.pose(rotations)
    vertices_m, joints_m = vertices_m - joints_m[9], joints_m - joints_m[9]
    if side == 'left':
        vertices_m, joints_m = (points * [-1.0, 1, 1] for points in (vertices_m, joints_m))
    joints_m = joints_m + at_m
    joints_px = project(joints_m, CAMERA)
    return make_hand(
        hand_id,
        side,
        joints_m=joints_m,
        vertices_m=vertices_m + at_m,
        joints_px=joints_px,
        joint_confidence=np.ones(21),
        box_xyxy_px=np.concatenate([joints_px.min(0) - 15, joints_px.max(0) + 15]),
        translation_m=joints_m[9],
        wrist_rotation=wrist_rotation(joints_m[None], np.array([side == 'right']))[0],
    )
