"""Publish hands as a headset would: HandMeshArray -> poses of OpenXR's joints, left then right.

    python examples/openxr_hands.py

`hand_poses` (geometry_msgs/PoseArray) carries 50 poses in the order of
`handos_ros.adapters.openxr.NAMED_JOINTS`; joints of a hand that is not seen lie at zero.
"""

from __future__ import annotations

import argparse
from typing import Any

from handos_model.hand.kinematics import PoseFitter
from handos_model.hand.model import HandModel
from handos_ros.adapters.openxr import named_poses, openxr_hand, poses_to_message
from handos_ros.messages.hand_messages import hand_from_message
from handos_ros.runtime import (
    Node,
    QoSProfile,
    SingleThreadedExecutor,
    init,
    message_type,
    ok,
    try_shutdown,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=0, help='stop after so many frames')
    options, _ = parser.parse_known_args()
    fitter = PoseFitter(HandModel.embedded())
    init()
    node = Node('openxr_hands')
    poses_type = message_type('geometry_msgs/msg/PoseArray')
    publisher = node.create_publisher(poses_type, 'hand_poses', QoSProfile(depth=1))
    sent = 0

    def on_hands(message: Any) -> None:
        nonlocal sent
        hands = [hand_from_message(hand) for hand in reversed(message.hands)]
        sides = {hand.side: openxr_hand(fitter, hand) for hand in hands}  # the surest stays
        poses, _ = named_poses(sides.get('left'), sides.get('right'))
        publisher.publish(poses_to_message(message_type, message.header, poses))
        sent += 1

    hands_type = message_type('handos/msg/HandMeshArray')
    node.create_subscription(hands_type, '/handos/hands', on_hands, QoSProfile(depth=1))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while ok() and (options.count == 0 or sent < options.count):
            executor.spin_once(timeout_sec=0.5)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        try_shutdown()


if __name__ == '__main__':
    main()
