"""Joints as dex-retargeting takes them: wrist-centred metres in its MANO axes.

dex-retargeting (https://github.com/dexsuite/dex-retargeting) rotates keypoints of a camera into
the hand's own frame before it retargets them. `operator_frame` builds that frame from the wrist
and the knuckles of index and middle finger, so that the camera's pose does not matter.
"""

from __future__ import annotations

import numpy as np

from handos_model.types import NUM_JOINTS, FloatArray

WRIST, INDEX_MCP, MIDDLE_MCP = 0, 5, 9
# From the operator's axes to MANO's; dex_retargeting.constants.OPERATOR2MANO_{RIGHT,LEFT}.
OPERATOR_TO_MANO_RIGHT = np.array([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]])
OPERATOR_TO_MANO_LEFT = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])


def operator_frame(joints_m: FloatArray) -> FloatArray:
    """Axes of the operator's hand [3,3] as columns, from joints [21,3].

    x points from the middle knuckle to the wrist, z towards the index finger's side, y completes
    the right-handed frame: out of the back of a left hand, out of the palm of a right one.
    Raises ValueError where wrist and knuckles lie in one line.
    """
    joints = _checked(joints_m)
    x = joints[WRIST] - joints[MIDDLE_MCP]
    y = np.cross(joints[INDEX_MCP] - joints[MIDDLE_MCP], x)
    if np.linalg.norm(y) < 1e-8:
        raise ValueError('wrist and knuckles lie in one line: there is no palm to take axes from')
    x = x / np.linalg.norm(x)
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def dex_retargeting_joints(joints_m: FloatArray, is_left: bool) -> FloatArray:
    """Joints [21,3] float32 in MANO's axes, the wrist at zero, of joints [21,3] in any frame.

    For `SeqRetargeting.retarget`: `joints[targets] - joints[origins]` of a vector or DexPilot
    retargeter, `joints[targets]` of a position retargeter. One retargeter serves one side.
    """
    joints = _checked(joints_m)
    to_mano = OPERATOR_TO_MANO_LEFT if is_left else OPERATOR_TO_MANO_RIGHT
    turned = (joints - joints[WRIST]) @ operator_frame(joints) @ to_mano
    return np.asarray(turned, np.float32)


def _checked(joints_m: FloatArray) -> FloatArray:
    joints = np.asarray(joints_m, np.float64)
    if joints.shape != (NUM_JOINTS, 3) or not np.isfinite(joints).all():
        raise ValueError(f'joints must be {NUM_JOINTS} x 3 and finite, got {list(joints.shape)}')
    return joints
