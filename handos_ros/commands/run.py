"""`handos run`: the node, on rclpy or on the embedded runtime."""

from __future__ import annotations


def run() -> None:
    """Run the node; parameters and remappings follow --ros-args, as for any ROS 2 node."""
    from handos_ros.node import hand_node
    from handos_ros.node.perception import PipelinePerception

    hand_node.run(PipelinePerception)
