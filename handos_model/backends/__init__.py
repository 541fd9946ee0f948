"""What runs the exported graphs, one file or folder a backend."""
