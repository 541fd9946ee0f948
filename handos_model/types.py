"""The values that pass between the packages: cameras and hands.

Frames and units are those of ROS (REP-103): metres, radians, seconds, and the camera's optical
frame (x right, y down, z forward). Every array name carries its unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
ImageArray: TypeAlias = npt.NDArray[np.uint8]
Side: TypeAlias = Literal['left', 'right']
DistortionModel: TypeAlias = Literal['plumb_bob', 'rational_polynomial', 'equidistant']

NUM_JOINTS = 21
NUM_VERTICES = 778
NUM_FACES = 1538
ROOT_JOINT = 9  # middle finger MCP: vertices and joints of the network are relative to it

# MPII/OpenPose order: the wrist, then each finger from the palm to the tip.
JOINT_NAMES: tuple[str, ...] = (
    'wrist',
    *('thumb_cmc', 'thumb_mcp', 'thumb_ip', 'thumb_tip'),
    *(
        f'{finger}_{part}'
        for finger in ('index', 'middle', 'ring', 'little')
        for part in ('mcp', 'pip', 'dip', 'tip')
    ),
)
SKELETON_EDGES: tuple[tuple[int, int], ...] = tuple(
    (0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, NUM_JOINTS)
)


class ScaleSource(IntEnum):
    """Where the metres of a hand come from."""

    NETWORK = 0  # the network's own guess under its virtual camera; the camera is uncalibrated
    INTRINSICS = 1  # solved for this camera's intrinsics, hand size as the network sees it
    DEPTH = 2  # refined by a depth image
    CALIBRATED = 3  # this user's measured hand length


class TrackState(IntEnum):
    """What the tracker knows of a hand in this frame."""

    TRACKED = 0  # seen in this frame
    COASTING = 1  # not seen for a few frames; the pose is the last one, moved on
    LOST = 2  # said once, then the id is never used again


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with distortion, as `sensor_msgs/CameraInfo` describes it.

    `matrix_px` is K [3,3]; `distortion` the coefficients D in OpenCV's order for
    `distortion_model`. `calibrated` is False where the focal length is a guess.
    """

    width: int
    height: int
    matrix_px: FloatArray
    distortion: FloatArray = field(default_factory=lambda: np.zeros(0))
    distortion_model: DistortionModel = 'plumb_bob'
    calibrated: bool = True

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f'camera size must be positive, got {self.width}x{self.height}')
        matrix = np.asarray(self.matrix_px, dtype=np.float64)
        distortion = np.asarray(self.distortion, dtype=np.float64).reshape(-1)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise ValueError(f'camera matrix must be 3x3 and finite, got {self.matrix_px!r}')
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise ValueError(
                f'focal lengths must be positive, got fx={matrix[0, 0]}, fy={matrix[1, 1]}: '
                'calibrate the camera or use Camera.uncalibrated(width, height)'
            )
        if not np.isfinite(distortion).all():
            raise ValueError('distortion coefficients must be finite')
        object.__setattr__(self, 'matrix_px', matrix)
        object.__setattr__(self, 'distortion', distortion)

    @classmethod
    def uncalibrated(cls, width: int, height: int) -> Camera:
        """The virtual camera of the network: focal length = longer side, centred."""
        focal_px = float(max(width, height))
        matrix = np.array(
            [[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]]
        )
        return cls(width, height, matrix, calibrated=False)


@dataclass(frozen=True, eq=False)
class Hand:
    """One hand in one image.

    Pixels are of the input image (distorted, as the camera delivers it; (0, 0) is the centre of
    the first pixel). Metres are in the camera's optical frame. Vertices are in right-hand order;
    a left hand is geometrically the mirror. Every number is finite.
    """

    id: int  # stable over a track; -1 without a tracker
    age: int  # frames since the track began
    state: TrackState
    side: Side
    side_probability: float  # of `side`, in [0.5, 1]
    score: float  # of the detection, in [0, 1]
    box_xyxy_px: FloatArray  # [4]
    joints_px: FloatArray  # [21,2]
    joint_confidence: FloatArray  # [21], probability that the joint is visible
    joints_m: FloatArray  # [21,3]
    vertices_m: FloatArray  # [778,3]
    wrist_rotation: FloatArray  # [3,3], columns = axes of the hand in the optical frame
    translation_m: FloatArray  # [3], position of joint 9 (middle MCP)
    translation_covariance_m2: FloatArray  # [3,3]
    scale_source: ScaleSource
    # [21,2] the 3D joints projected at the network's own translation, under its virtual camera, as
    # the paper does; None unless asked for. `joints_m` are placed by the camera instead.
    network_joints_px: FloatArray | None = None

    @property
    def is_left(self) -> bool:
        return self.side == 'left'

    @property
    def distance_m(self) -> float:
        """Distance from the camera to the root joint."""
        return float(np.linalg.norm(self.translation_m))
