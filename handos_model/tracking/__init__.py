"""Hands over time."""
