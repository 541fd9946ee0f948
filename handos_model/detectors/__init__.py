"""Frozen DETR-like detectors behind one protocol, one file a family."""
