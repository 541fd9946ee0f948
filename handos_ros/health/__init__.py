"""The usual mistakes of a ROS 2 graph: what is observed, and what is wrong with it."""
