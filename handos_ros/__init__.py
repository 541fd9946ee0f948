"""The HandOS node, its messages and its command line, on ROS 2 or without it."""
