"""One TensorRT engine behind `infer`: fixed shapes, memory allocated once, one stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from handos_model.backends.tensorrt.cuda_driver import Array, CudaDriver, DeviceMemory
from handos_model.backends.tensorrt.library import TensorRtLibrary
from handos_model.errors import UserError

if TYPE_CHECKING:
    import tensorrt as trt

Kind: TypeAlias = tuple[tuple[int, ...], np.dtype[Any]]  # shape and element type


@dataclass(frozen=True)
class Gpu:
    """What the graphs of one engine share: the driver, and the stream that orders their work."""

    driver: CudaDriver
    stream: int

    @classmethod
    def open(cls) -> Gpu:
        driver = CudaDriver()
        return cls(driver, driver.create_stream())


@dataclass(frozen=True)
class DeviceTensor:
    """An output that stayed on the GPU, for a graph on the same stream.

    The next run of its own graph overwrites it.
    """

    gpu: Gpu
    memory: DeviceMemory
    kind: Kind

    def numpy(self) -> Array:
        """A copy on the host."""
        array = np.empty(*self.kind)
        self.gpu.driver.make_current()
        self.gpu.driver.copy_to_host(array, self.memory, self.gpu.stream)
        self.gpu.driver.synchronize(self.gpu.stream)
        return array


class TensorRtGraph:
    """An engine that was verified before: `plan` is native code and is run as it is.

    Outputs named in `on_device` stay there as DeviceTensor, which graphs of the same `gpu` take.
    """

    def __init__(
        self, library: TensorRtLibrary, gpu: Gpu, plan: bytes, on_device: tuple[str, ...] = ()
    ) -> None:
        """Raises UserError where TensorRT cannot load it, or its tensors are not as expected."""
        import tensorrt as trt

        gpu.driver.make_current()
        library.lines.clear()
        try:
            runtime = trt.Runtime(library.logger)
        except TypeError:  # pybind11's way to say that the library returned a null pointer
            raise library.error('its runtime does not start') from None
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise library.error('the engine cannot be loaded')
        context = engine.create_execution_context()
        if context is None:
            raise library.error('the engine has no room to run')
        # In this order the parts are let go of, each before what it depends on.
        self._context, self._engine, self._runtime = context, engine, runtime
        self._library, self._gpu = library, gpu
        self._inputs: dict[str, Kind] = {}
        self._memory: dict[str, DeviceMemory] = {}
        self._borrowed: dict[str, DeviceTensor] = {}
        self._on_host: dict[str, Array] = {}
        self._on_device: dict[str, DeviceTensor] = {}
        for name, is_input, kind in _tensors(engine):
            if is_input:
                self._inputs[name] = kind
                continue
            memory = self._own(name, kind)
            if name in on_device:
                self._on_device[name] = DeviceTensor(gpu, memory, kind)
            else:
                self._on_host[name] = gpu.driver.host_array(*kind)

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once; inputs are contiguous numpy arrays, or tensors of graphs on the same GPU."""
        self._check(inputs)
        driver, stream = self._gpu.driver, self._gpu.stream
        driver.make_current()
        for name, value in inputs.items():
            if isinstance(value, DeviceTensor):
                self._borrow(name, value)
            else:
                driver.copy_to_device(self._own(name, self._inputs[name]), value, stream)
        if not self._context.execute_async_v3(stream):
            raise self._library.error('the engine does not run')
        for name, array in self._on_host.items():
            driver.copy_to_host(array, self._memory[name], stream)
        driver.synchronize(stream)
        return {**self._on_host, **self._on_device}

    def _check(self, inputs: Mapping[str, Any]) -> None:
        """TensorRT reads what it is pointed at: a wrong shape or type would be wrong memory."""
        if inputs.keys() != self._inputs.keys():
            raise ValueError(f'inputs {sorted(inputs)} instead of {sorted(self._inputs)}')
        for name, value in inputs.items():
            borrowed = isinstance(value, DeviceTensor)
            kind = value.kind if borrowed else (value.shape, value.dtype)
            if kind != self._inputs[name] or (borrowed and value.gpu is not self._gpu):
                raise ValueError(f'{name} is {kind} instead of {self._inputs[name]}, or elsewhere')

    def _own(self, name: str, kind: Kind) -> DeviceMemory:
        """Memory of this graph for a tensor, allocated once and bound."""
        unbound = self._borrowed.pop(name, None) is not None or name not in self._memory
        if name not in self._memory:
            nbytes = int(np.prod(kind[0])) * kind[1].itemsize
            self._memory[name] = self._gpu.driver.allocate(nbytes)
        if unbound:
            self._bind(name, self._memory[name])
        return self._memory[name]

    def _borrow(self, name: str, tensor: DeviceTensor) -> None:
        """Read another graph's output where it is; the reference keeps its memory alive."""
        if self._borrowed.get(name) is not tensor:
            self._bind(name, tensor.memory)
            self._borrowed[name] = tensor

    def _bind(self, name: str, memory: DeviceMemory) -> None:
        if not self._context.set_tensor_address(name, memory.address):
            raise self._library.error(f'it does not take the memory of {name}')


def _tensors(engine: trt.ICudaEngine) -> list[tuple[str, bool, Kind]]:
    """(name, is it an input, its shape and type) of all; UserError where we cannot serve one."""
    import tensorrt as trt

    found = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        dtype = _dtypes().get(engine.get_tensor_dtype(name))
        on_gpu = engine.get_tensor_location(name) == trt.TensorLocation.DEVICE
        if dtype is None or not on_gpu or min(shape, default=1) < 1:
            raise UserError(
                f'tensor {name} of the engine has shape {shape} and type '
                f'{engine.get_tensor_dtype(name)}: export the weights again and delete the engines'
            )
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        found.append((name, is_input, (shape, np.dtype(dtype))))
    return found


def _dtypes() -> dict[trt.DataType, npt.DTypeLike]:
    """Not `tensorrt.nptype`, which in early versions asks numpy for names that it has dropped.

    INT64 stays 64 bits wide, as it does in TensorRT since 9.
    """
    import tensorrt as trt

    return {
        trt.DataType.FLOAT: np.float32,
        trt.DataType.HALF: np.float16,
        trt.DataType.INT8: np.int8,
        trt.DataType.INT32: np.int32,
        trt.DataType.INT64: np.int64,
        trt.DataType.UINT8: np.uint8,
        trt.DataType.BOOL: np.bool_,
    }
