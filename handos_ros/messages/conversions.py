"""Messages to arrays and back: no I/O, no per-element Python.

The message classes come in as arguments or from the messages themselves, so that the same code
serves rclpy's messages, the embedded runtime's and those of a bag.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handos_model.geometry.rotations import matrix_to_quaternion_xyzw
from handos_model.types import (
    JOINT_NAMES,
    SKELETON_EDGES,
    Camera,
    DistortionModel,
    FloatArray,
    Hand,
    ImageArray,
)
from handos_ros.images import compressed, encodings
from handos_ros.images.encodings import ImageError
from handos_ros.messages.stamped import CameraInfo, Header, Image, Picture, Stamped

MessageTypes = Callable[[str], Any]  # 'package/msg/Name' -> class
UNKNOWN_ROTATION_VARIANCE_RAD2 = np.pi**2
LARGEST_PX = 1e6  # no focal length or principal point is larger
# Numbers of distortion coefficients that each model may have.
DISTORTION_LENGTHS: dict[DistortionModel, tuple[int, ...]] = {
    'plumb_bob': (0, 4, 5),
    'rational_polynomial': (0, 8, 12, 14),
    'equidistant': (0, 4),
}


class CameraInfoError(ValueError):
    """A CameraInfo without a usable calibration; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Limits:
    """Sizes above which an image is refused."""

    max_pixels: int = encodings.MAX_PIXELS
    max_compressed_bytes: int = compressed.MAX_COMPRESSED_BYTES


def stamp_ns(message: Stamped) -> int:
    """Header stamp in nanoseconds."""
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def image_to_rgb(message: Picture, limits: Limits) -> ImageArray:
    """sensor_msgs/Image or CompressedImage -> [H,W,3] uint8 RGB. Raises ImageError."""
    if hasattr(message, 'format'):
        return compressed.decode_compressed_rgb(
            message.data, max_pixels=limits.max_pixels, max_bytes=limits.max_compressed_bytes
        )
    return encodings.decode_rgb(**_layout(message), max_pixels=limits.max_pixels)


def depth_to_m(message: Image, shape: tuple[int, int], limits: Limits) -> FloatArray:
    """sensor_msgs/Image 16UC1 or 32FC1 -> [H,W] float32 metres, NaN where unknown.

    `shape` is (H, W) of the colour image that it must cover. Raises ImageError.
    """
    if (message.height, message.width) != shape:
        raise ImageError(
            f'depth is {message.width}x{message.height} but the image is {shape[1]}x{shape[0]}: '
            'subscribe to the depth that is aligned to the colour image'
        )
    return encodings.decode_depth_m(**_layout(message), max_pixels=limits.max_pixels)


def camera_from_info(message: CameraInfo, shape: tuple[int, int]) -> Camera:
    """sensor_msgs/CameraInfo -> the camera of images of `shape` (H, W), binning and ROI applied.

    Raises CameraInfoError for an uncalibrated camera or one of another size.
    """
    k = np.array(message.k, np.float64)
    focal_px, centre_px = k[[0, 4]], k[[2, 5]]
    if not ((focal_px >= 1) & (focal_px < LARGEST_PX) & (np.abs(centre_px) < LARGEST_PX)).all():
        raise CameraInfoError(
            'camera_info is not calibrated (its K is zero, NaN or that of no camera): run '
            'camera_calibration and give the result to the camera driver'
        )
    model, distortion = _distortion(message)
    roi = message.roi
    binning_x, binning_y = max(1, message.binning_x), max(1, message.binning_y)
    width = (roi.width or message.width) // binning_x
    height = (roi.height or message.height) // binning_y
    if (height, width) != shape or min(shape) <= 0:
        raise CameraInfoError(
            f'camera_info is for {width}x{height} but the image is {shape[1]}x{shape[0]}: '
            'calibrate at the resolution in use, or remap camera_info to this camera'
        )
    offset_px = np.array([roi.x_offset, roi.y_offset])
    binning = np.array([binning_x, binning_y])
    # Pixel centres lie at whole numbers: to coordinates from the image's edge, bin, and back.
    cx, cy = (centre_px - offset_px + 0.5) / binning - 0.5
    fx, fy = focal_px / binning
    matrix_px = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return Camera(width, height, matrix_px, distortion, model)


def hands_to_message(
    types: MessageTypes,
    header: Header,
    hands: Sequence[Hand],
    *,
    model: str,
    template_hash: str,
    with_vertices: bool,
    thetas: Sequence[FloatArray] | None = None,
) -> Any:
    """handos/HandMeshArray with the image's header."""
    rotations = _quaternions(hands)
    no_thetas: list[FloatArray | None] = [None] * len(hands)
    return types('handos/msg/HandMeshArray')(
        header=header,
        hands=[
            hand_to_message(
                types, header, hand, rotation, with_vertices=with_vertices, theta=theta
            )
            for hand, rotation, theta in zip(hands, rotations, thetas or no_thetas, strict=True)
        ],
        model=model,
        template_hash=template_hash,
    )


def hand_to_message(
    types: MessageTypes,
    header: Header,
    hand: Hand,
    rotation_xyzw: Sequence[float],
    *,
    with_vertices: bool,
    theta: FloatArray | None = None,
) -> Any:
    """handos/HandMesh of one hand, whose wrist is turned by `rotation_xyzw`."""
    mesh_type = types('handos/msg/HandMesh')
    message = mesh_type(
        header=header,
        id=int(hand.id),
        age=int(hand.age),
        state=int(hand.state),
        side=mesh_type.LEFT if hand.is_left else mesh_type.RIGHT,
        side_probability=float(hand.side_probability),
        score=float(hand.score),
        scale_source=int(hand.scale_source),
    )
    message.box_xyxy_px = _fixed(hand.box_xyxy_px)
    message.joints_px = _fixed(hand.joints_px)
    message.joint_confidence = _fixed(hand.joint_confidence)
    message.joints_m = _fixed(hand.joints_m)
    if with_vertices:
        message.vertices_m = _sequence(hand.vertices_m, 'f')
    if theta is not None:
        message.theta = _sequence(theta, 'f')
    _set_xyz(message.wrist.pose.position, hand.joints_m[0])
    _set_xyz(message.translation_m, hand.translation_m)
    _set_xyzw(message.wrist.pose.orientation, rotation_xyzw)
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = hand.translation_covariance_m2
    covariance[3:, 3:] = np.eye(3) * UNKNOWN_ROTATION_VARIANCE_RAD2
    message.wrist.covariance = covariance.reshape(-1)
    return message


def topology_to_message(
    types: MessageTypes, triangles: Any, *, model: str, template_hash: str
) -> Any:
    """handos/HandTopology from triangles [F,3]."""
    return types('handos/msg/HandTopology')(
        model=model,
        template_hash=template_hash,
        triangles=_sequence(triangles, 'I'),
        skeleton_edges=_sequence(np.array(SKELETON_EDGES), 'I'),
        joint_names=list(JOINT_NAMES),
    )


def detections_to_message(types: MessageTypes, header: Header, hands: Sequence[Hand]) -> Any:
    """vision_msgs/Detection2DArray: the boxes, with the side as class."""
    result_type = types('vision_msgs/msg/ObjectHypothesisWithPose')
    detection_type = types('vision_msgs/msg/Detection2D')
    detections = []
    for hand in hands:
        x_min, y_min, x_max, y_max = (float(value) for value in hand.box_xyxy_px)
        result = result_type()
        result.hypothesis.class_id = f'{hand.side}_hand'
        result.hypothesis.score = float(hand.score)
        _set_xyz(result.pose.pose.position, hand.translation_m)
        detection = detection_type(header=header, results=[result], id=str(hand.id))
        detection.bbox.center.position.x = (x_min + x_max) / 2
        detection.bbox.center.position.y = (y_min + y_max) / 2
        detection.bbox.size_x = x_max - x_min
        detection.bbox.size_y = y_max - y_min
        detections.append(detection)
    return types('vision_msgs/msg/Detection2DArray')(header=header, detections=detections)


def transforms_to_message(types: MessageTypes, header: Header, hands: Sequence[Hand]) -> Any:
    """tf2_msgs/TFMessage: `<camera>/hand_<id>` is the wrist in the camera's optical frame."""
    transform_type = types('geometry_msgs/msg/TransformStamped')
    transforms = []
    for hand, rotation in zip(hands, _quaternions(hands), strict=True):
        transform = transform_type(
            header=header, child_frame_id=f'{header.frame_id}/hand_{hand.id}'
        )
        _set_xyz(transform.transform.translation, hand.joints_m[0])
        _set_xyzw(transform.transform.rotation, rotation)
        transforms.append(transform)
    return types('tf2_msgs/msg/TFMessage')(transforms=transforms)


def rgb_to_image_message(types: MessageTypes, header: Header, image_rgb: ImageArray) -> Any:
    """sensor_msgs/Image in rgb8 from [H,W,3]."""
    height, width, channels = image_rgb.shape
    return types('sensor_msgs/msg/Image')(
        header=header,
        height=height,
        width=width,
        encoding='rgb8',
        step=width * channels,
        data=_sequence(image_rgb, 'B'),
    )


def camera_to_info_message(types: MessageTypes, header: Header, camera: Camera) -> Any:
    """sensor_msgs/CameraInfo; K stays zero, as ROS wants it, where the camera is a guess."""
    message = types('sensor_msgs/msg/CameraInfo')(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model=camera.distortion_model,
        d=array.array('d', camera.distortion.tobytes()),
    )
    if camera.calibrated:
        message.k = camera.matrix_px.reshape(-1)
        message.r = np.eye(3).reshape(-1)
        message.p = np.hstack([camera.matrix_px, np.zeros((3, 1))]).reshape(-1)
    return message


def _layout(message: Image) -> dict[str, Any]:
    return {
        'data': message.data,
        'encoding': message.encoding,
        'width': message.width,
        'height': message.height,
        'step': message.step,
        'is_bigendian': bool(message.is_bigendian),
    }


def _distortion(message: CameraInfo) -> tuple[DistortionModel, FloatArray]:
    distortion = np.array(message.d, np.float64)
    name = message.distortion_model or 'plumb_bob'
    model = next((known for known in DISTORTION_LENGTHS if known == name), None)
    if model is None:
        raise CameraInfoError(
            f'distortion model {name!r} is not supported; use {", ".join(DISTORTION_LENGTHS)}'
        )
    if len(distortion) not in DISTORTION_LENGTHS[model] or not np.isfinite(distortion).all():
        raise CameraInfoError(
            f'camera_info has {len(distortion)} distortion coefficients, or NaN '
            f'among them; {model} has one of {DISTORTION_LENGTHS[model]}: calibrate again'
        )
    return model, distortion


def _fixed(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values, np.float32).reshape(-1)


def _sequence(values: Any, typecode: str) -> array.array[Any]:
    """What rclpy takes without looking at every element."""
    sequence = array.array(typecode)
    sequence.frombytes(np.ascontiguousarray(values, np.dtype(typecode)).data.cast('B'))
    return sequence


def _set_xyz(target: Any, values: FloatArray) -> None:
    target.x, target.y, target.z = (float(value) for value in values)


def _set_xyzw(target: Any, values: Sequence[float]) -> None:
    target.x, target.y, target.z, target.w = values


def _quaternions(hands: Sequence[Hand]) -> list[list[float]]:
    """Wrist rotations as x, y, z, w; one call for all, because each costs 0.1 ms."""
    if not hands:
        return []
    quaternions: list[list[float]] = matrix_to_quaternion_xyzw(
        np.stack([hand.wrist_rotation for hand in hands])
    ).tolist()
    return quaternions
