"""Hands as OpenXR's hand tracking gives them: 26 joints with orientations, named poses.

The orientations come from the mesh (`handos_model.hand.kinematics`); axes are those of
XR_EXT_hand_tracking: +z along the bone towards the wrist, +y out of the back of the hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handos_model.geometry.rotations import matrix_to_quaternion_xyzw
from handos_model.hand.kinematics import OPENXR_JOINTS, PoseFitter, openxr_joints
from handos_model.types import FloatArray, Hand, TrackState

PALM = OPENXR_JOINTS.index('palm')
# What teleoperation takes of both hands: every joint but the palm, left before right.
NAMED_JOINTS: tuple[str, ...] = tuple(
    f'{side}_{name}'
    for side in ('left', 'right')
    for index, name in enumerate(OPENXR_JOINTS)
    if index != PALM
)


@dataclass(frozen=True, eq=False)
class OpenXRHand:
    """One hand in the order of `OPENXR_JOINTS`, in the camera's optical frame."""

    positions_m: FloatArray  # [26,3]
    orientations_xyzw: FloatArray  # [26,4], unit quaternions
    is_valid: npt.NDArray[np.bool_]  # [26]


def openxr_hand(fitter: PoseFitter, hand: Hand) -> OpenXRHand:
    """Poses of a hand's joints. Joints of a hand that is not seen now are not valid.

    Raises ValueError for a hand without vertices.
    """
    if len(hand.vertices_m) == 0:
        raise ValueError('the hand has no mesh to take orientations from: set publish_vertices')
    pose = fitter(hand.vertices_m, hand.is_left)
    positions_m, rotations = openxr_joints(fitter.hand_model, pose, hand.joints_m, hand.is_left)
    seen = hand.state is TrackState.TRACKED
    return OpenXRHand(
        positions_m, matrix_to_quaternion_xyzw(rotations), np.full(len(OPENXR_JOINTS), seen)
    )


def named_poses(
    left: OpenXRHand | None, right: OpenXRHand | None
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Poses [50,7] (x, y, z, then the quaternion x, y, z, w) and validity [50].

    In the order of `NAMED_JOINTS`; a joint that is not valid has position zero and no rotation.
    """
    poses = np.zeros((2, len(OPENXR_JOINTS), 7))
    poses[..., 6] = 1.0
    valid = np.zeros((2, len(OPENXR_JOINTS)), bool)
    for index, hand in enumerate((left, right)):
        if hand is not None:
            values = np.concatenate([hand.positions_m, hand.orientations_xyzw], axis=-1)
            poses[index, hand.is_valid] = values[hand.is_valid]
            valid[index] = hand.is_valid
    kept = np.arange(len(OPENXR_JOINTS)) != PALM
    return poses[:, kept].reshape(-1, 7), valid[:, kept].reshape(-1)


def poses_to_message(types: Callable[[str], Any], header: Any, poses: FloatArray) -> Any:
    """geometry_msgs/PoseArray of poses [N,7]; names go by their order."""
    pose_type = types('geometry_msgs/msg/Pose')
    messages = []
    for x, y, z, *quaternion in poses.tolist():
        message = pose_type()
        message.position.x, message.position.y, message.position.z = x, y, z
        orientation = message.orientation
        orientation.x, orientation.y, orientation.z, orientation.w = quaternion
        messages.append(message)
    return types('geometry_msgs/msg/PoseArray')(header=header, poses=messages)
