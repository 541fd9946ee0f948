"""Counts what the node sends until SIGINT, then prints it as JSON."""

import json
import sys

from handos_ros.runtime import (
    DurabilityPolicy,
    ExternalShutdownException,
    Node,
    QoSProfile,
    SingleThreadedExecutor,
    init,
    message_type,
    ok,
    try_shutdown,
)

if __name__ == '__main__':
    init(args=[])
    node = Node('recorder')
    hands: list[dict[str, object]] = []
    topologies: list[int] = []
    counts: dict[str, str] = {}

    def on_hands(message) -> None:
        hands.append(
            {
                'stamp': [int(message.header.stamp.sec), int(message.header.stamp.nanosec)],
                'frame': message.header.frame_id,
                'states': [int(hand.state) for hand in message.hands],
                'vertices': [len(hand.vertices_m) for hand in message.hands],
            }
        )

    def on_diagnostics(message) -> None:
        for status in message.status:
            if status.name.endswith('frames'):
                counts.update({pair.key: pair.value for pair in status.values})

    hands_type = message_type('handos/msg/HandMeshArray')
    node.create_subscription(hands_type, '/handos/hands', on_hands, QoSProfile(depth=100))
    node.create_subscription(
        message_type('diagnostic_msgs/msg/DiagnosticArray'),
        '/diagnostics',
        on_diagnostics,
        QoSProfile(depth=10),
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    print('ready', flush=True)
    try:
        while ok():
            executor.spin_once(timeout_sec=0.5)
            if hands and not topologies:  # a late joiner: its reader is made after the hands came
                topologies.append(-1)
                node.create_subscription(
                    message_type('handos/msg/HandTopology'),
                    '/handos/topology',
                    lambda message: topologies.append(len(message.triangles)),
                    QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
                )
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    executor.shutdown()
    node.destroy_node()
    try_shutdown()
    json.dump({'hands': hands, 'topologies': topologies[1:], 'counts': counts}, sys.stdout)
