"""What goes over the wire: ROS 2's types, bytes, topics and qualities of service in DDS."""
