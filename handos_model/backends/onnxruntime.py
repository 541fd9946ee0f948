"""ONNX Runtime on CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from handos_model.backends.arithmetic import fastest_on_cpu, has_int8_products
from handos_model.backends.base import (
    Array,
    Engine,
    EngineOptions,
    choose_variant,
    decoder_sizes,
    usable_cores,
    with_window,
)
from handos_model.errors import UserError
from handos_model.weights.exported import HANDS, ExportedWeights, Precision

_DTYPES = {
    'tensor(float)': np.float32,
    'tensor(uint8)': np.uint8,
    'tensor(int64)': np.int64,
}


def missing() -> str | None:
    """Why it cannot run here, None where it can."""
    if find_spec('onnxruntime') is None:
        return 'not installed (pip install onnxruntime)'
    return None


def open_engine(weights: Path, options: EngineOptions) -> Engine:
    """The graphs of an exported folder on this machine's CPU."""
    return open_with_provider(weights, options, 'cpu')


class OnnxGraph:
    """One ONNX Runtime session with its inputs and outputs bound once.

    Outputs named in `on_device` stay there as OrtValue, for the next graph.
    """

    def __init__(
        self,
        path: Path,
        settings: Any,
        device: str = 'cpu',
        on_device: tuple[str, ...] = (),
    ) -> None:
        """`settings` are `session_options`, which are for one graph. Raises UserError."""
        import onnxruntime as ort

        providers = ['CUDAExecutionProvider'] * (device == 'cuda') + ['CPUExecutionProvider']
        try:
            self._session = ort.InferenceSession(str(path), settings, providers=providers)
        except Exception as error:  # its errors have no common base
            raise UserError(
                f'ONNX Runtime {ort.__version__} cannot open {path}: {error}'
            ) from error
        self._binding = self._session.io_binding()
        self._buffers: dict[str, Array] = {}
        self._bound: dict[str, int] = {}
        self._on_device = on_device
        self._outputs = [output.name for output in self._session.get_outputs()]
        for output in self._session.get_outputs():
            if output.name in on_device:
                self._binding.bind_output(output.name, device)
                continue
            buffer = np.empty(output.shape, _DTYPES[output.type])
            self._buffers[output.name] = buffer
            self._binding.bind_output(
                output.name, 'cpu', 0, buffer.dtype, buffer.shape, buffer.ctypes.data
            )

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once; numpy inputs are read in place and must be contiguous."""
        for name, value in inputs.items():
            if isinstance(value, np.ndarray):
                if self._bound.get(name) == value.ctypes.data:
                    continue
                self._binding.bind_cpu_input(name, value)
                self._bound[name] = value.ctypes.data
            else:
                self._binding.bind_ortvalue_input(name, value)
        self._session.run_with_iobinding(self._binding)
        if not self._on_device:
            return dict(self._buffers)
        values = dict(zip(self._outputs, self._binding.get_outputs(), strict=True))
        return {name: self._buffers.get(name, values[name]) for name in self._outputs}


def session_options(threads: int | None, hands: int | None = None) -> Any:
    """One graph at a time on `threads` threads (None: the cores that this process may use).

    `hands` is K of a decoder, whose sizes are constants then.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Each graph has its own threads: those of one would spin on the cores that the next needs.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    if not has_int8_products():
        # 8-bit graphs as exact as on other CPUs, where sums of products would saturate.
        options.add_session_config_entry('session.x64quantprecision', '1')
    if hands is not None:
        options.add_free_dimension_override_by_name(HANDS, hands)
    return options


def open_with_provider(weights: Path, options: EngineOptions, device: str) -> Engine:
    """The graphs of an exported folder on 'cpu' or 'cuda'."""
    return with_window(weights, options, partial(open_graphs, device=device))


def open_graphs(exported: ExportedWeights, options: EngineOptions, device: str = 'cpu') -> Engine:
    """Those of the whole input, or of a window of it."""
    prefer: Precision = 'fp16' if device == 'cuda' else fastest_on_cpu(exported)
    precision, sampling = choose_variant(exported, options, prefer)

    def opened(hands: int | None, on_device: tuple[str, ...] = ()) -> OnnxGraph:
        path = exported.path(hands, precision, sampling)
        return OnnxGraph(path, session_options(options.threads, hands), device, on_device)

    detector = opened(None, ('features',) if device == 'cuda' else ())
    decoders = {
        hands: opened(hands) for hands in decoder_sizes(exported, options, precision, sampling)
    }
    return Engine(f'onnxruntime on {device.upper()}, {precision}', detector, decoders, precision)
