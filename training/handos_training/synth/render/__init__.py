"""From triangles to linear light."""
