"""OpenVINO on CPUs: the fastest of the CPU backends where it was measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from handos_model.backends.arithmetic import fastest_on_cpu
from handos_model.backends.base import (
    Array,
    Engine,
    EngineOptions,
    Graph,
    choose_variant,
    decoder_sizes,
    usable_cores,
    with_window,
)
from handos_model.backends.opening import OpeningGraph, in_turn
from handos_model.errors import UserError
from handos_model.files import cache_home
from handos_model.weights.exported import ExportedWeights


def missing() -> str | None:
    """Why it cannot run here, None where it can."""
    if find_spec('openvino') is None:
        return 'not installed (pip install openvino)'
    return None


class OpenVinoGraph:
    """One compiled graph whose tensors are numpy arrays."""

    def __init__(
        self, core: Any, path: Path, settings: dict[str, Any], hands: int | None = None
    ) -> None:
        """`hands` is K of a decoder. Raises UserError."""
        import openvino as ov

        try:
            model: Any = str(path)
            if hands is not None:
                model = core.read_model(model)
                shapes = {value: value.partial_shape for value in model.inputs}
                model.reshape({
                    value: [hands if size.is_dynamic else size.get_length() for size in shape]
                    for value, shape in shapes.items()
                })  # fmt: skip
            compiled = core.compile_model(model, 'CPU', settings)
        except RuntimeError as error:
            raise UserError(
                f'OpenVINO {ov.__version__} cannot compile {path}: {error}; '
                'use another backend (--backend onnxruntime)'
            ) from error
        self._request = compiled.create_infer_request()
        self._tensor = ov.Tensor
        self._bound: dict[str, int] = {}
        self._buffers: dict[str, Array] = {}
        for output in compiled.outputs:
            buffer = np.empty(tuple(output.shape), output.element_type.to_dtype())
            self._request.set_tensor(output, ov.Tensor(buffer, shared_memory=True))
            for name in output.names:  # ours is one of them, in no certain order
                self._buffers[name] = buffer

    def warmed(self) -> OpenVinoGraph:
        """The same after a first run, on inputs of its own, which takes longer than others."""
        self._request.infer()
        return self

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once; inputs are read in place and must be contiguous."""
        for name, value in inputs.items():
            if self._bound.get(name) != value.ctypes.data:
                self._request.set_tensor(name, self._tensor(value, shared_memory=True))
                self._bound[name] = value.ctypes.data
        self._request.infer()
        return dict(self._buffers)


def _cache_folder() -> str | None:
    """Where compiled graphs are kept, None where no folder is this user's alone.

    With it a start takes a third of the time. What OpenVINO keeps there for CPUs is its own form
    of the graph, no machine code, under the hash of graph, settings and version.
    """
    try:
        folder = cache_home() / 'handos' / 'openvino'
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, UserError):
        return None
    others = hasattr(os, 'getuid') and (status.st_uid != os.getuid() or status.st_mode & 0o022)
    return None if others or not os.access(folder, os.W_OK) else str(folder)


def open_engine(weights: Path, options: EngineOptions) -> Engine:
    """The graphs of an exported folder on this machine's CPU.

    Precision 'bf16' is faster on CPUs that have it, but rounds sampling locations as well: it is
    outside the parity limits, and never chosen by itself.
    """
    import openvino as ov

    core = ov.Core()
    return with_window(weights, options, partial(_open_graphs, core))


def _open_graphs(core: Any, exported: ExportedWeights, options: EngineOptions) -> Engine:
    hint = 'bf16' if options.precision == 'bf16' else 'f32'
    in_file = replace(options, precision='fp32' if hint == 'bf16' else options.precision)
    precision, sampling = choose_variant(exported, in_file, fastest_on_cpu(exported))
    settings: dict[str, Any] = {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_NUM_THREADS': options.threads or usable_cores(),
        # Left alone, OpenVINO takes bf16 or fp16 wherever the CPU has it.
        'INFERENCE_PRECISION_HINT': hint,
    }
    if (cache := _cache_folder()) is not None:
        settings['CACHE_DIR'] = cache
    sizes = decoder_sizes(exported, options, precision, sampling)

    def graph(hands: int | None) -> Callable[[], Graph]:
        path = exported.path(hands, precision, sampling)
        return lambda: OpenVinoGraph(core, path, settings, hands).warmed()

    # The first frame needs no window, and most first frames the smallest decoder alone.
    first = {None, sizes[0]} if exported.window is None else set()
    detector, *of_hands = (
        in_turn(graph(hands)) if hands in first else OpeningGraph(graph(hands))
        for hands in (None, *sizes)
    )
    decoders = dict(zip(sizes, of_hands, strict=True))
    shown = 'bf16' if hint == 'bf16' else precision
    return Engine(f'openvino on CPU, {shown}', detector, decoders, shown, warmed=True)
