"""Inference backends: a table of modules, each imported when it is asked for.

A backend module has two functions: `missing()`, which says why it cannot run on this machine and
what to install (None: it can), and `open_engine(weights, options)`, which opens the graphs of a
weights folder. Loading a module must not need its library.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from handos_model.backends.base import Engine, EngineOptions, Graph, usable_cores
from handos_model.errors import UserError

__all__ = [
    'BACKENDS',
    'Engine',
    'EngineOptions',
    'Graph',
    'choose_backend',
    'open_engine',
    'usable_cores',
    'why_unavailable',
]

# In the order in which `auto` tries them.
BACKENDS: dict[str, str] = {
    'tensorrt': 'handos_model.backends.tensorrt.backend',
    'onnxruntime-cuda': 'handos_model.backends.onnxruntime_cuda',
    'openvino': 'handos_model.backends.openvino',
    'onnxruntime': 'handos_model.backends.onnxruntime',
    'torch': 'handos_model.backends.torch',
}


def why_unavailable(name: str, weights: Path | None = None) -> str | None:
    """Why backend `name` cannot run here (with `weights`, where given), None where it can."""
    if find_spec(BACKENDS[name]) is None:
        return 'not part of this installation of handos-ros'
    reason: str | None = _module(name).missing()
    if reason is None and weights is not None:
        return _lacking_files(name, weights)
    return reason


def choose_backend(name: str = 'auto', weights: Path | None = None) -> tuple[str, str]:
    """(backend, the reason for the choice); `auto` takes the first of `BACKENDS` that can run.

    Raises UserError where `name` is unknown or cannot run, or nothing can.
    """
    if name != 'auto':
        if name not in BACKENDS:
            raise UserError(f'backend {name!r} is not one of auto, {", ".join(BACKENDS)}')
        reason = why_unavailable(name, weights)
        if reason is not None:
            raise UserError(f'backend {name} cannot run: {reason}')
        return name, 'asked for'
    passed_over: list[str] = []
    for candidate in BACKENDS:
        reason = why_unavailable(candidate, weights)
        if reason is None:
            return candidate, '; '.join(['the first that can run', *passed_over])
        passed_over.append(f'{candidate}: {reason}')
    raise UserError(f'no backend can run: {"; ".join(passed_over)}')


def open_engine(name: str, weights: Path, options: EngineOptions) -> Engine:
    """Open the graphs in folder `weights` with backend `name` (of `choose_backend`)."""
    engine: Engine = _module(name).open_engine(weights, options)
    return engine


def _module(name: str) -> ModuleType:
    return import_module(BACKENDS[name])


def _lacking_files(name: str, weights: Path) -> str | None:
    needed = 'model.safetensors' if name == 'torch' else 'manifest.json'
    if (weights / needed).is_file():
        return None
    if name == 'torch':
        return f'{weights} has no model.safetensors'
    return f'{weights} has no {needed} (handos export WEIGHTS --out DIR)'
