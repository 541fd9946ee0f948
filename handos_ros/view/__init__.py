"""Hands as people look at them: in the browser and in recordings."""
