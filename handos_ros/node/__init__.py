"""The lifecycle node and its parts."""
