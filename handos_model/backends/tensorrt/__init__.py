"""TensorRT: engines are built, compared, signed, cached and run."""
