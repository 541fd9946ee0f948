"""The hand: mesh model, its poses and kinematics, and the MANO of a user."""
