"""handos/HandMesh messages back to `Hand`: what consumers on this side of the wire begin with."""

from __future__ import annotations

from typing import Any

import numpy as np

from handos_model.geometry.rotations import quaternion_xyzw_to_matrix
from handos_model.types import NUM_JOINTS, Hand, ScaleSource, TrackState


def hand_from_message(message: Any) -> Hand:
    """The hand of a handos/HandMesh; `vertices_m` is [0,3] where the node leaves them out.

    Raises ValueError for values that no node sends.
    """
    pose = message.wrist.pose
    wrist_xyzw = [getattr(pose.orientation, axis) for axis in 'xyzw']
    translation = message.translation_m
    return Hand(
        id=message.id,
        age=message.age,
        state=TrackState(message.state),
        side='left' if message.side == message.LEFT else 'right',
        side_probability=message.side_probability,
        score=message.score,
        box_xyxy_px=np.array(message.box_xyxy_px, np.float64),
        joints_px=np.array(message.joints_px, np.float64).reshape(NUM_JOINTS, 2),
        joint_confidence=np.array(message.joint_confidence, np.float64),
        joints_m=np.array(message.joints_m, np.float64).reshape(NUM_JOINTS, 3),
        vertices_m=np.array(message.vertices_m, np.float64).reshape(-1, 3),
        wrist_rotation=quaternion_xyzw_to_matrix(np.array(wrist_xyzw)),
        translation_m=np.array([translation.x, translation.y, translation.z]),
        translation_covariance_m2=np.array(message.wrist.covariance).reshape(6, 6)[:3, :3],
        scale_source=ScaleSource(message.scale_source),
    )
