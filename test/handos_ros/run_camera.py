"""Grey images and their camera_info, reliable as most drivers send them; arguments: size, rate.

A line of JSON on standard input changes what is sent from then on: fields of `Sent`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from handos_ros import runtime as ros


@dataclass
class Sent:
    """What an image and its camera_info look like, and when they come."""

    width: int
    height: int
    rate_hz: float
    encoding: str = 'rgb8'
    step_off: int = 0  # bytes more than a row has
    bytes_missing: int = 0
    clock_off_s: float = 0.0  # of the camera's clock
    frozen: bool = False  # the stamp stays
    stamped: bool = True
    focal_px: float = 500.0
    info_width: int = 0  # 0 is the image's
    burst: int = 1  # images at once
    infos: bool = True
    images: bool = True


def main(sent: Sent) -> None:
    threading.Thread(target=obey, args=(sent,), daemon=True).start()
    ros.init(args=[])
    node = ros.Node('camera')
    image_type = ros.message_type('sensor_msgs/msg/Image')
    info_type = ros.message_type('sensor_msgs/msg/CameraInfo')
    images = node.create_publisher(image_type, 'image', ros.QoSProfile(depth=5))
    infos = node.create_publisher(info_type, 'camera_info', ros.QoSProfile(depth=5))
    stamp_ns = 0
    while ros.ok():
        for _ in range(sent.burst):
            if not sent.frozen:
                stamp_ns = time.time_ns() + int(sent.clock_off_s * 1e9)
            header = ros.message_type('std_msgs/msg/Header')(frame_id='camera_optical')
            if sent.stamped:
                header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
            if sent.infos:
                infos.publish(info_type(header=header, **info_fields(sent)))
            if sent.images:
                images.publish(image_type(header=header, **image_fields(sent)))
            time.sleep(0.001)  # each has a stamp of its own
        time.sleep(sent.burst / sent.rate_hz)
    ros.try_shutdown()


def image_fields(sent: Sent) -> dict[str, Any]:
    size = 3 * sent.width * sent.height - sent.bytes_missing
    return {
        'width': sent.width,
        'height': sent.height,
        'step': 3 * sent.width + sent.step_off,
        'encoding': sent.encoding,
        'data': np.full(size, 128, np.uint8),
    }


def info_fields(sent: Sent) -> dict[str, Any]:
    f, x, y = sent.focal_px, sent.width / 2, sent.height / 2
    return {
        'width': sent.info_width or sent.width,
        'height': sent.height,
        'k': np.array([f, 0, x, 0, f, y, 0, 0, 1.0]),
        'distortion_model': 'plumb_bob',
    }


def obey(sent: Sent) -> None:
    for line in sys.stdin:
        for name, value in json.loads(line).items():
            setattr(sent, name, value)


if __name__ == '__main__':
    main(Sent(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
