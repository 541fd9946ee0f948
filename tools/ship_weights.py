"""Complete a folder of exported graphs to one that ships: half-precision weights and checksums.

    handos export RUN/weights --out weights/nano --storage fp16
    handos-quantise weights/nano --photos PHOTOS
    python tools/ship_weights.py RUN/weights weights/nano

Matrices are stored as float16, vectors (biases, statistics) as they are; loading widens them,
so that training continues from the shipped folder (`--init-from weights/nano`); the heads of the
dense targets go along for that. The model card (README.md) is written by a person.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from handos_model.weights.store import WEIGHTS, verify_checksums, write_checksums
from handos_training.stages.dense import HEADS_FILE


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """float16 for matrices and kernels, unless a value does not fit."""
    if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.abs().max() > 6e4:
        return tensor
    return tensor.half()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', type=Path, help='the weights folder of a training run')
    parser.add_argument('out', type=Path, help='the folder that `handos export` wrote')
    arguments = parser.parse_args()
    verify_checksums(arguments.run)
    for name in (WEIGHTS, HEADS_FILE):
        if not (arguments.run / name).is_file():
            continue
        tensors = {key: halved(value) for key, value in load_file(arguments.run / name).items()}
        save_file(tensors, arguments.out / name, {'format': 'pt'})
        (arguments.out / name).chmod(0o644)
    write_checksums(arguments.out)
    size_mb = sum(file.stat().st_size for file in arguments.out.iterdir()) / 1e6
    print(f'{arguments.out}: {size_mb:.1f} MB')


if __name__ == '__main__':
    main()
