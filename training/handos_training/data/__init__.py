"""One sample type and the readers that fill it."""
