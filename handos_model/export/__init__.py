"""From the network to ONNX graphs."""
