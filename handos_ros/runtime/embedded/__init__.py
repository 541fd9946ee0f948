"""The small part of rclpy that the node uses, on Cyclone DDS and rosbags from PyPI.

Names and semantics are rclpy's own; the wire is ROS 2's, so a real ROS 2 graph sees the node.
Services, actions, simulated time and whatever else the node does not use are left out.
"""
