"""The network in torch; nothing outside this room, `export` and one backend needs torch."""
