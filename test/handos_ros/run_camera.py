"""Grey images and their camera_info, reliable as most drivers send them; arguments: size, rate."""

import sys
import time

import numpy as np

from handos_ros import runtime as ros


def main(width: int, height: int, rate_hz: float) -> None:
    ros.init(args=[])
    node = ros.Node('camera')
    image_type = ros.message_type('sensor_msgs/msg/Image')
    info_type = ros.message_type('sensor_msgs/msg/CameraInfo')
    images = node.create_publisher(image_type, 'image', ros.QoSProfile(depth=5))
    infos = node.create_publisher(info_type, 'camera_info', ros.QoSProfile(depth=5))
    info = info_type(width=width, height=height)
    image = image_type(
        width=width,
        height=height,
        step=3 * width,
        encoding='rgb8',
        data=np.full(3 * width * height, 128, np.uint8),
    )
    while ros.ok():
        stamp = node.get_clock().now().to_msg()
        image.header.stamp = info.header.stamp = stamp
        infos.publish(info)
        images.publish(image)
        time.sleep(1 / rate_hz)
    ros.try_shutdown()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
