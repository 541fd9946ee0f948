"""Complete a folder of exported graphs to one that ships: half-precision weights and checksums.

    handos export RUN/weights --out weights/nano --storage fp16
    handos-quantise weights/nano --photos PHOTOS
    python tools/ship_weights.py RUN/weights weights/nano

Matrices are stored as float16, vectors (biases, statistics) as they are; loading widens them,
so that training continues from the shipped folder (`--init-from weights/nano`); the heads of the
dense targets go along for that. Kernels are stored with their normalisation's scale in them, as
they stand in the graphs, so that torch computes with the graphs' numbers. The model card
(README.md) is written by a person.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from handos_model.export.half_storage import scale_kernels
from handos_model.network.handos import HandOS
from handos_model.weights.store import WEIGHTS, verify_checksums, write_checksums
from handos_training.stages.dense import HEADS_FILE


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """float16 for matrices and kernels, unless a value does not fit."""
    if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.abs().max() > 6e4:
        return tensor
    return tensor.half()


def write_half(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Store tensors by name, matrices and kernels as float16."""
    # Copies: safetensors refuses tensors that share memory, as a detector's tied heads do.
    small = {name: halved(value).clone().contiguous() for name, value in tensors.items()}
    save_file(small, path, {'format': 'pt'})
    path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', type=Path, help='the weights folder of a training run')
    parser.add_argument('out', type=Path, help='the folder that `handos export` wrote')
    arguments = parser.parse_args()
    verify_checksums(arguments.run)
    network = HandOS.from_pretrained(arguments.run)
    scale_kernels(network)
    write_half(network.state_dict(), arguments.out / WEIGHTS)
    if (arguments.run / HEADS_FILE).is_file():
        write_half(load_file(arguments.run / HEADS_FILE), arguments.out / HEADS_FILE)
    write_checksums(arguments.out)
    size_mb = sum(file.stat().st_size for file in arguments.out.iterdir()) / 1e6
    print(f'{arguments.out}: {size_mb:.1f} MB')


if __name__ == '__main__':
    main()
