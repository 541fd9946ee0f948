"""What is asked of a message, whoever made its class: rclpy, the embedded runtime, a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias


class Time(Protocol):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(Protocol):
    """std_msgs/Header."""

    stamp: Time
    frame_id: str


class Stamped(Protocol):
    """A message that says when and in which frame it was taken."""

    @property
    def header(self) -> Header: ...


class Image(Stamped, Protocol):
    """sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int | bool
    step: int
    data: Any  # bytes, array or memory


class CompressedImage(Stamped, Protocol):
    """sensor_msgs/CompressedImage."""

    format: str
    data: Any  # bytes, array or memory


Picture: TypeAlias = 'Image | CompressedImage'


class RegionOfInterest(Protocol):
    """sensor_msgs/RegionOfInterest, of which a camera's image is a part."""

    x_offset: int
    y_offset: int
    height: int
    width: int


class CameraInfo(Stamped, Protocol):
    """sensor_msgs/CameraInfo; `k` is row-major [9]."""

    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    binning_x: int
    binning_y: int
    roi: RegionOfInterest
