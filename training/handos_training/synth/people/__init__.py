"""People who are drawn: arms, bodies, poses, clothes."""
