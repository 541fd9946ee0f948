"""Hands, cameras and images as messages, and back."""
