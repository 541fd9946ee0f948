"""Weights and exported graphs on disk."""
