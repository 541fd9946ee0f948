"""`handos camera`: a webcam, video or image folder as `image` and `camera_info`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from handos_model.types import Camera
from handos_ros.images.camera_files import read_camera_file
from handos_ros.images.sources import ImageSource

WAIT_FOR_DISCOVERY_S = 0.5  # a matched reader on this side may not have matched us yet


def camera(
    source: Annotated[str, typer.Argument(help='Webcam number or device, video file, or folder.')],
    rate_hz: Annotated[
        float, typer.Option('--rate', help="Images a second; 0 takes the source's own.")
    ] = 0.0,
    loop: Annotated[bool, typer.Option(help='Begin again at the end.')] = False,
    wait: Annotated[bool, typer.Option(help='Begin when somebody subscribes.')] = False,
    frame_id: Annotated[str, typer.Option(help='Optical frame of the camera.')] = 'camera_optical',
    calibration: Annotated[
        Path | None, typer.Option(help='Calibration YAML of camera_calibration.')
    ] = None,
) -> None:
    """Publish `image` and `camera_info`; remap them after --ros-args."""
    from handos_ros.runtime import init, try_shutdown

    images = ImageSource(source)
    known_camera = read_camera_file(calibration) if calibration else None
    init(args=None)
    try:
        count = _publish(images, rate_hz or images.rate_hz, loop, wait, frame_id, known_camera)
    except KeyboardInterrupt:
        count = None
    finally:
        images.close()
        try_shutdown()
    if count is not None:
        print(f'{count} images published')


def _publish(
    images: ImageSource,
    rate_hz: float,
    loop: bool,
    wait: bool,
    frame_id: str,
    known_camera: Camera | None,
) -> int:
    """Publish until the source ends or the context stops; the number of images."""
    from handos_ros.messages.conversions import camera_to_info_message, rgb_to_image_message
    from handos_ros.runtime import Node, QoSProfile, message_type, ok

    node = Node('camera')
    image_publisher = node.create_publisher(
        message_type('sensor_msgs/msg/Image'), 'image', QoSProfile(depth=5)
    )
    info_publisher = node.create_publisher(
        message_type('sensor_msgs/msg/CameraInfo'), 'camera_info', QoSProfile(depth=5)
    )
    if wait:
        _wait_for_subscribers(image_publisher, ok)
    count = 0
    due_s = time.monotonic()
    while ok():
        for image_rgb in images.frames():
            if not images.live:
                time.sleep(max(0.0, due_s - time.monotonic()))
                due_s += 1.0 / rate_hz
            if not ok():  # after the sleep, which SIGTERM may have ended the context in
                break
            height, width = image_rgb.shape[:2]
            header = message_type('std_msgs/msg/Header')(
                stamp=node.get_clock().now().to_msg(), frame_id=frame_id
            )
            camera = known_camera or Camera.uncalibrated(width, height)
            info_publisher.publish(camera_to_info_message(message_type, header, camera))
            image_publisher.publish(rgb_to_image_message(message_type, header, image_rgb))
            count += 1
        if not loop or images.live:
            break
        images.rewind()
    return count


def _wait_for_subscribers(publisher: Any, ok: Any) -> None:
    while ok() and publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    time.sleep(WAIT_FOR_DISCOVERY_S)
