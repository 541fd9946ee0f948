"""Detectors, one file a family, behind the protocol of `protocol.py`."""
