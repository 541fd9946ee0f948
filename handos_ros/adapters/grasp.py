"""What a gripper is driven by: how far a pinch is open, and how far each finger is bent."""

from __future__ import annotations

import numpy as np

from handos_model.types import FloatArray

TIPS = (4, 8, 12, 16, 20)  # thumb, index, middle, ring, little


def pinch_distances_m(joints_m: FloatArray) -> FloatArray:
    """Thumb tip to the tip of index, middle, ring and little finger [4], of joints [21,3]."""
    tips = np.asarray(joints_m)[list(TIPS)]
    distances: FloatArray = np.linalg.norm(tips[1:] - tips[0], axis=-1)
    return distances


def flexion_angles_rad(joints_m: FloatArray) -> FloatArray:
    """How far each bone is bent against the one before it [5,3], 0 when straight, never negative.

    Rows: thumb (CMC, MCP, IP), then index to little (MCP, PIP, DIP). It needs the joints [21,3]
    alone; signed rotations are in `Pose.theta`.
    """
    joints = np.asarray(joints_m, dtype=np.float64)
    angles = np.empty((5, 3))
    for finger, tip in enumerate(TIPS):
        bones = np.diff(joints[[0, *range(tip - 3, tip + 1)]], axis=0)  # [4,3]
        # atan2 keeps its accuracy where the bones are nearly in line.
        sine = np.linalg.norm(np.cross(bones[:-1], bones[1:]), axis=-1)
        angles[finger] = np.arctan2(sine, (bones[:-1] * bones[1:]).sum(-1))
    return angles
