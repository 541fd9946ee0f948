"""What stands before a camera, as triangles and as labels."""
