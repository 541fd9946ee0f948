"""Complete generated samples a second, as JSON; `handos-synth bench` is the same.

`images_per_second` is wall time over the worker processes; `cpu_ms_per_image` is processor time of
one thread, which a busy machine does not change much.
"""

from __future__ import annotations

import tyro

from handos_training.synth.cli import bench

if __name__ == '__main__':
    tyro.cli(bench)
