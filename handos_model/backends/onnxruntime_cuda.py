"""ONNX Runtime with its CUDA provider; features stay on the GPU between the graphs.

Not run on hardware by the project's tests, which have no GPU.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from handos_model.backends.base import Engine, EngineOptions
from handos_model.backends.onnxruntime import open_with_provider


def missing() -> str | None:
    """Why it cannot run here, None where it can."""
    if find_spec('onnxruntime') is None:
        return 'not installed (pip install onnxruntime-gpu)'
    import onnxruntime

    if 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
        return 'this onnxruntime has no CUDA (pip install onnxruntime-gpu)'
    if not Path('/dev/nvidiactl').exists() and not Path('/dev/nvgpu').exists():
        return 'no NVIDIA GPU on this machine'
    return None


def open_engine(weights: Path, options: EngineOptions) -> Engine:
    """The graphs of an exported folder on the first GPU."""
    return open_with_provider(weights, options, 'cuda')
