"""Joint rotation limits of the hand, and poses within them.

A joint turns about three axes of the rest pose, `axes [16,3,3]` (rows: flexion, abduction,
twist). Positive flexion closes the fist, positive abduction moves towards the thumb's side, twist
turns about the bone. Limits are normal ranges of motion (AAOS) as published goniometry gives them;
those of the thumb's base are relative to the rest pose, not goniometric.
"""

from __future__ import annotations

import numpy as np

from handos_model.types import FloatArray

WRIST, INDEX, MIDDLE, LITTLE, RING, THUMB = 0, 1, 4, 7, 10, 13  # first joint of each chain
FINGERS = (INDEX, MIDDLE, RING, LITTLE)  # side by side
FLEXION, ABDUCTION, TWIST = 0, 1, 2

_PIP_DEG = ((-5, 110), (0, 0), (0, 0))
_DIP_DEG = ((-10, 80), (0, 0), (0, 0))

# [16,3,2]: joint in MANO order, axis, (lowest, highest). The wrist's row limits the hand against
# the forearm; the root rotation of a HandModel is free.
LIMITS_DEG: FloatArray = np.array(
    [
        ((-65, 75), (-25, 18), (0, 0)),  # wrist
        *(((-30, 90), (-15, 22), (-4, 4)), _PIP_DEG, _DIP_DEG),  # index
        *(((-30, 90), (-12, 12), (-4, 4)), _PIP_DEG, _DIP_DEG),  # middle
        *(((-30, 90), (-28, 15), (-4, 4)), _PIP_DEG, _DIP_DEG),  # little
        *(((-30, 90), (-18, 10), (-4, 4)), _PIP_DEG, _DIP_DEG),  # ring
        ((-25, 45), (-15, 45), (-10, 25)),  # thumb CMC
        ((-15, 60), (-8, 8), (0, 0)),  # thumb MCP
        ((-20, 85), (0, 0), (0, 0)),  # thumb IP
    ],
    dtype=np.float64,
)


def rotations_from_angles(angles_rad: FloatArray, axes: FloatArray) -> FloatArray:
    """Angles about the joints' axes as matrices: twist · abduction · flexion.

    `angles_rad [...,16,3]`, `axes [16,3,3]` unit rows -> `[...,16,3,3]` in the rest frame, as
    `HandModel.pose` takes them. Each factor is Rodrigues' formula I + sin(t) K + (1 - cos(t)) K².
    """
    cross = np.zeros((16, 3, 3, 3))  # K of every joint and axis
    x, y, z = np.moveaxis(axes, -1, 0)
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -z, y, -x
    cross -= np.swapaxes(cross, -1, -2)
    angle = angles_rad[..., None, None]
    turns = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    rotations: FloatArray = (
        turns[..., TWIST, :, :] @ turns[..., ABDUCTION, :, :] @ turns[..., FLEXION, :, :]
    )
    return rotations


def couple(angles_deg: FloatArray) -> FloatArray:
    """The nearest angles that a hand's tendons and ligaments allow, `[...,16,3]`, within limits.

    Neighbouring knuckles flex together, a flexed knuckle hardly spreads, and the thumb's base
    pronates as it opposes.
    """
    angles = np.clip(angles_deg, LIMITS_DEG[..., 0], LIMITS_DEG[..., 1])
    flexion, abduction, twist = np.moveaxis(angles, -1, 0)
    for finger, neighbour in zip(FINGERS[1:], FINGERS[:-1], strict=True):
        difference = np.clip(flexion[..., finger] - flexion[..., neighbour], -75, 60)
        flexion[..., finger] = flexion[..., neighbour] + difference
    for finger in FINGERS:
        abduction[..., finger] *= np.clip(1 - flexion[..., finger] / 85, 0.1, 1)
    twist[..., THUMB] = 0.27 * abduction[..., THUMB] + 0.2 * np.maximum(flexion[..., THUMB], 0)
    clipped: FloatArray = np.clip(
        np.stack([flexion, abduction, twist], -1), LIMITS_DEG[..., 0], LIMITS_DEG[..., 1]
    )
    return clipped


def random_angles_deg(rng: np.random.Generator, count: int) -> FloatArray:
    """Uniform within the limits, then coupled; a DIP follows its PIP. `[count,16,3]`."""
    low, high = LIMITS_DEG[..., 0], LIMITS_DEG[..., 1]
    angles = low + (high - low) * rng.random((count, 16, 3))
    for finger in FINGERS:
        pip = angles[:, finger + 1, FLEXION]
        angles[:, finger + 2, FLEXION] = 2 / 3 * pip + rng.uniform(-15, 15, count)
    return couple(angles)


def random_rotations(rng: np.random.Generator, count: int) -> FloatArray:
    """Uniform over SO(3), `[count,3,3]` (Shoemake 1992)."""
    w, x, y, z = (q := rng.standard_normal((4, count))) / np.linalg.norm(q, axis=0)
    matrix: FloatArray = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    return matrix


def random_pose(rng: np.random.Generator, count: int, axes: FloatArray) -> FloatArray:
    """Rotations `[count,16,3,3]` within the limits, the root's uniform over SO(3)."""
    angles_rad = np.radians(random_angles_deg(rng, count))
    angles_rad[:, WRIST] = 0
    rotations = rotations_from_angles(angles_rad, axes)
    rotations[:, WRIST] = random_rotations(rng, count)
    return rotations
