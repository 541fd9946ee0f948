"""Cameras, rotations, and where hands stand in space (numpy)."""
