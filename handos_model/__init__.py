"""HandOS: hands from one camera, in metres. Never imports ROS."""
