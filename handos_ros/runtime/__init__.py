"""rclpy where it is importable, otherwise the same names on Cyclone DDS."""
