"""Move a robot hand with the hands that the node sees: HandMeshArray -> dex-retargeting.

    pip install dex_retargeting
    python examples/retarget_dex.py CONFIG.yml --urdf-dir URDFS --side right

CONFIG.yml is one of dex-retargeting's own (dex_retargeting/configs/teleop), URDFS the folder of
its robots. Prints the robot's joint angles of every frame in which the hand is seen.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from dex_retargeting.retargeting_config import RetargetingConfig

from handos_model.types import FloatArray, TrackState
from handos_ros.adapters.dex_retargeting import dex_retargeting_joints
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


def retarget(retargeting: Any, joints_m: FloatArray, is_left: bool) -> FloatArray:
    """Joint angles of the robot for joints [21,3]."""
    joints = dex_retargeting_joints(joints_m, is_left)
    optimizer = retargeting.optimizer
    indices = optimizer.target_link_human_indices
    if optimizer.retargeting_type == 'POSITION':
        return np.asarray(retargeting.retarget(joints[indices]))
    origins, targets = indices
    return np.asarray(retargeting.retarget(joints[targets] - joints[origins]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='configuration of dex-retargeting')
    parser.add_argument('--urdf-dir', required=True, help="folder of dex-retargeting's robots")
    parser.add_argument('--side', choices=('left', 'right'), default='right')
    parser.add_argument('--count', type=int, default=0, help='stop after so many frames')
    options, _ = parser.parse_known_args()
    RetargetingConfig.set_default_urdf_dir(options.urdf_dir)
    retargeting = RetargetingConfig.load_from_file(options.config).build()
    printed = 0

    def on_hands(message: Any) -> None:
        nonlocal printed
        hands = [hand_from_message(hand) for hand in message.hands]
        seen = [
            hand
            for hand in hands
            if hand.side == options.side and hand.state is TrackState.TRACKED
        ]
        if seen:  # the first is the surest
            angles_rad = retarget(retargeting, seen[0].joints_m, seen[0].is_left)
            print(np.array2string(angles_rad, precision=3, max_line_width=10_000), flush=True)
            printed += 1

    init()
    node = Node('retarget_dex')
    hands_type = message_type('handos/msg/HandMeshArray')
    node.create_subscription(hands_type, '/handos/hands', on_hands, QoSProfile(depth=1))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while ok() and (options.count == 0 or printed < options.count):
            executor.spin_once(timeout_sec=0.5)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        try_shutdown()


if __name__ == '__main__':
    main()
