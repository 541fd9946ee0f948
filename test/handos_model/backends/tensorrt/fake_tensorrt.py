"""A stand-in for TensorRT's Python package that is stricter than the package itself.

It has what HandOS may use of 10.3 or of 11 and nothing else, so that a removed name raises
AttributeError. It takes arguments of the documented types only; it wants every object alive that
TensorRT needs alive, every address set and on the GPU, and it computes with ONNX Runtime when the
stream (of fake_cuda.c) is synchronised, not before.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum, IntEnum
from importlib.machinery import ModuleSpec
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper

PLAN = b'FAKEPLAN'
WORKSPACE_RANGE = (1 << 20, 1 << 40)


@dataclass
class Faults:
    """What goes wrong, and a record of what was called."""

    version: str = '10.3.0'
    start_warning: str = ''  # said when nothing starts
    plugins: bool = True
    unreadable: list[str] = field(default_factory=list)  # graphs the parser refuses, by doc string
    wrong: list[str] = field(default_factory=list)  # graphs that are miscomputed
    nan: list[str] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)  # graphs that break the GPU when they run
    build_error: str = ''
    crash: dict[str, int] = field(default_factory=dict)  # graphs whose building ends by a signal
    load_error: str = ''
    no_context: bool = False
    run_fails: bool = False
    timings_foreign: bool = False
    log_file: str = ''  # also written here, for processes of their own
    calls: list[str] = field(default_factory=list)
    loaded_plans: list[bytes] = field(default_factory=list)

    def note(self, call: str) -> None:
        self.calls.append(call)
        if self.log_file:
            with Path(self.log_file).open('a') as file:
                file.write(call + '\n')

    def to_json(self) -> str:
        values = asdict(self)
        del values['calls'], values['loaded_plans']
        return json.dumps(values)


@dataclass
class FakeMachine:
    """What a test can break, and what it can look at."""

    faults: Faults
    cuda: ctypes.CDLL
    cuda_path: Path
    caches: Path

    @property
    def engines(self) -> Path:
        return self.caches / 'handos' / 'engines'


def of_environment() -> ModuleType:
    """For a process of its own: FAKE_TENSORRT holds the faults, FAKE_CUDA the driver's path."""
    faults = Faults(**json.loads(os.environ['FAKE_TENSORRT']))
    return make_module(faults, ctypes.CDLL(os.environ['FAKE_CUDA']))


def typed(value: Any, *types: type) -> None:
    if type(value) not in types:
        raise TypeError(f'incompatible function arguments: {value!r} is no {types}')


def alive(reference: weakref.ref[Any], what: str) -> Any:
    target = reference()
    assert target is not None, f'{what} was let go of while it was needed'
    return target


def make_module(faults: Faults, cuda: ctypes.CDLL) -> ModuleType:
    """The package as `import tensorrt` would give it."""
    generation = int(faults.version.split('.')[0])
    module = ModuleType('tensorrt')
    cuda.fake_is_device.argtypes = (ctypes.c_uint64, ctypes.c_size_t)
    run_type = ctypes.CFUNCTYPE(ctypes.c_int)
    cuda.fake_enqueue.argtypes = (run_type, ctypes.c_void_p)

    class Severity(Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class ILogger:
        def __init__(self) -> None:
            self.initialised = True

    ILogger.Severity = Severity  # type: ignore[attr-defined]

    class DataType(Enum):
        FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)

    class TensorIOMode(Enum):
        NONE, INPUT, OUTPUT = range(3)

    class TensorLocation(Enum):
        DEVICE, HOST = range(2)

    class MemoryPoolType(Enum):
        WORKSPACE, DLA_MANAGED_SRAM = range(2)

    if generation < 11:

        class NetworkDefinitionCreationFlag(IntEnum):
            EXPLICIT_BATCH, STRONGLY_TYPED = range(2)

        class BuilderFlag(Enum):
            FP16, INT8, TF32 = range(3)

    else:

        class NetworkDefinitionCreationFlag(IntEnum):  # type: ignore[no-redef]
            STRONGLY_TYPED = 1

        class BuilderFlag(Enum):  # type: ignore[no-redef]
            TF32 = 2

    def usable(logger: Any) -> None:
        assert isinstance(logger, ILogger) and getattr(logger, 'initialised', False)

    def start(logger: Any) -> None:
        usable(logger)
        if faults.start_warning:
            logger.log(Severity.WARNING, faults.start_warning)
            raise TypeError('pybind11::init(): factory function returned nullptr')

    class IHostMemory(bytearray):  # a buffer that is no bytes object
        @property
        def nbytes(self) -> int:
            return len(self)

    class Dims:  # pybind11 gives it a length and an index, no iterator
        def __init__(self, shape: list[int]) -> None:
            self._shape = shape

        def __len__(self) -> int:
            return len(self._shape)

        def __getitem__(self, index: int) -> int:
            return self._shape[index]

    class ParserError:
        def __init__(self, text: str) -> None:
            self._text = text

        def desc(self) -> str:
            return self._text

    class ITensor:
        def __init__(self, shape: list[int]) -> None:
            self._shape = shape

        @property
        def shape(self) -> Dims:
            return Dims(self._shape)

        @shape.setter
        def shape(self, value: Any) -> None:
            typed(value, tuple)
            assert len(value) == len(self._shape)
            for size, before in zip(value, self._shape, strict=True):
                typed(size, int)
                assert size == before if before >= 0 else size > 0, 'a size that was fixed'
            self._shape = list(value)

    class INetworkDefinition:
        def __init__(self, builder: Any) -> None:
            self.builder = weakref.ref(builder)
            self.parser: weakref.ref[Any] | None = None
            self.model = b''
            self.inputs: list[ITensor] = []

        @property
        def num_inputs(self) -> int:
            return len(self.inputs)

        def get_input(self, index: int) -> ITensor:
            typed(index, int)
            return self.inputs[index]

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            typed(network, INetworkDefinition)
            usable(logger)
            self._network, self._logger = weakref.ref(network), logger
            self._errors: list[ParserError] = []
            network.parser = weakref.ref(self)

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def parse(self, model: Any, path: str | None = None) -> bool:
            typed(model, bytes)
            model = with_weights_inside(model, path)
            network = alive(self._network, 'the network')
            alive(network.builder, 'the builder')
            faults.note(f'parse {name_of(model)}')
            if name_of(model) in faults.unreadable:
                self._errors.append(ParserError('no importer registered for op: GridSample'))
                return False
            network.model = model
            network.inputs = [ITensor(shape) for shape in input_shapes(model)]
            return True

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def serialize(self) -> IHostMemory:
            return IHostMemory(self.content + b't')

    class IBuilderConfig:
        def __init__(self) -> None:
            self.workspace = 0
            self.tf32 = True
            self.timings: Any = None

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            typed(pool, MemoryPoolType)
            typed(pool_size, int)
            assert WORKSPACE_RANGE[0] <= pool_size <= WORKSPACE_RANGE[1]
            self.workspace = pool_size

        def clear_flag(self, flag: Any) -> None:
            typed(flag, BuilderFlag)
            self.tf32 = self.tf32 and flag is not BuilderFlag.TF32

        def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache:
            typed(serialized_timing_cache, bytes)
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            typed(cache, ITimingCache)
            assert ignore_mismatch is False  # times of another GPU are worse than none
            if faults.timings_foreign and cache.content:
                return False
            self.timings = cache
            return True

    class Builder:
        def __init__(self, logger: Any) -> None:
            start(logger)
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            typed(flags, int)
            known = sum(1 << int(flag) for flag in NetworkDefinitionCreationFlag)
            assert flags & ~known == 0, 'a flag that this TensorRT does not have'
            assert generation >= 11 or flags & 2, 'precision must be what the graph says'
            return INetworkDefinition(self)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def build_serialized_network(self, network: Any, config: Any) -> IHostMemory | None:
            typed(network, INetworkDefinition)
            typed(config, IBuilderConfig)
            assert network.builder() is self
            assert network.parser is not None
            alive(network.parser, 'the parser, which owns the weights,')
            assert network.model and config.workspace and not config.tf32
            assert config.timings is not None
            shapes = [tensor._shape for tensor in network.inputs]
            assert min(size for shape in shapes for size in shape) > 0, 'no profile for open sizes'
            fixed = with_input_shapes(network.model, shapes)
            faults.note(f'build {name_of(fixed)}')
            if name_of(fixed) in faults.crash:
                os.kill(os.getpid(), faults.crash[name_of(fixed)])
            if faults.build_error:
                self._logger.log(Severity.ERROR, faults.build_error)
                return None
            return IHostMemory(PLAN + f'{faults.version:32}'.encode() + fixed)

    class IExecutionContext:
        def __init__(self, engine: Any) -> None:
            self._engine = weakref.ref(engine)
            self._addresses: dict[str, int] = {}
            self._kept: list[Any] = []

        def set_tensor_address(self, name: str, memory: int) -> bool:
            typed(name, str)
            typed(memory, int)
            engine = alive(self._engine, 'the engine')
            assert name in engine.tensors, name
            assert memory % 256 == 0, 'not aligned'
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            typed(stream_handle, int)
            assert cuda.fake_has_context(), 'this thread has not made the context current'
            if faults.run_fails:
                return False
            engine = alive(self._engine, 'the engine')
            alive(engine.runtime, 'the runtime')
            assert self._addresses.keys() == engine.tensors.keys(), 'an address is not set'
            ranges = []
            for name, (_, shape, dtype) in engine.tensors.items():
                size = int(np.prod(shape)) * dtype.itemsize
                assert cuda.fake_is_device(self._addresses[name], size), (
                    f'{name} is not on the GPU'
                )
                ranges.append((self._addresses[name], size))
            ranges.sort()
            for (a, size), (b, _) in pairwise(ranges):
                assert a + size <= b, 'tensors overlap'
            addresses = dict(self._addresses)
            run = run_type(lambda: engine.compute(addresses))
            self._kept = [run]
            return cuda.fake_enqueue(run, stream_handle) == 0

    class ICudaEngine:
        def __init__(self, runtime: Any, model: bytes) -> None:
            self.runtime = weakref.ref(runtime)
            self._name, self._compute = name_of(model), session_of(model)
            self.tensors = self._compute.tensors
            self._names = list(self.tensors)

        @property
        def num_io_tensors(self) -> int:
            return len(self._names)

        def get_tensor_name(self, index: int) -> str:
            return self._names[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if self.tensors[name][0] else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return {
                'float32': DataType.FLOAT, 'uint8': DataType.UINT8, 'int64': DataType.INT64,
            }[self.tensors[name][2].name]  # fmt: skip

        def get_tensor_shape(self, name: str) -> Dims:
            return Dims(list(self.tensors[name][1]))

        def get_tensor_location(self, name: str) -> TensorLocation:
            return TensorLocation.DEVICE

        def create_execution_context(self) -> IExecutionContext | None:
            return None if faults.no_context else IExecutionContext(self)

        def compute(self, addresses: dict[str, int]) -> int:
            if self._name in faults.breaks:
                return 1
            inputs = {
                name: at(addresses[name], shape, dtype).copy()
                for name, (is_input, shape, dtype) in self.tensors.items()
                if is_input
            }
            for name, value in self._compute(inputs).items():
                if self._name in faults.wrong:
                    value = value * 1.3 + 0.01
                if self._name in faults.nan:
                    value = value * np.float32(np.nan)
                at(addresses[name], value.shape, value.dtype)[...] = value
            return 0

    class Runtime:
        def __init__(self, logger: Any) -> None:
            start(logger)
            self._logger = weakref.ref(logger)

        def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
            typed(serialized_engine, bytes, memoryview)
            logger = alive(self._logger, 'the logger')
            faults.loaded_plans.append(bytes(serialized_engine))
            faults.note('load')
            assert serialized_engine[: len(PLAN)] == PLAN, (
                'native code that TensorRT did not write'
            )
            start_of_model = len(PLAN) + 32
            version = bytes(serialized_engine[len(PLAN) : start_of_model]).decode().strip()
            assert version == faults.version, 'an engine of another version reached the library'
            if faults.load_error:
                logger.log(Severity.ERROR, faults.load_error)
                return None
            return ICudaEngine(self, bytes(serialized_engine[start_of_model:]))

    def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
        usable(logger)
        assert namespace == ''
        return faults.plugins

    for value in (
        ILogger, DataType, TensorIOMode, TensorLocation, MemoryPoolType, BuilderFlag,
        NetworkDefinitionCreationFlag, OnnxParser, Builder, Runtime, init_libnvinfer_plugins,
    ):  # fmt: skip
        setattr(module, value.__name__, value)
    module.__version__ = faults.version  # type: ignore[attr-defined]
    module.__spec__ = ModuleSpec('tensorrt', None)  # for find_spec
    return module


def at(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


def with_weights_inside(model: bytes, path: str | None) -> bytes:
    """The graph with what lies in files beside `path` read into it."""
    whole = onnx.load_model_from_string(model)
    if not any(external_data_helper.uses_external_data(t) for t in whole.graph.initializer):
        return model
    assert path is not None, 'the parser needs the path of a graph whose weights are elsewhere'
    external_data_helper.load_external_data_for_model(whole, str(Path(path).parent))
    return whole.SerializeToString()


def name_of(model: bytes) -> str:
    """Which graph it is: the tests write that into the doc string."""
    import onnx

    return onnx.load_from_string(model).doc_string.split('; ')[0]


SESSIONS: dict[str, Callable[..., Any]] = {}


def input_shapes(model: bytes) -> list[list[int]]:
    """Sizes of the graph's inputs, -1 where one is open."""
    return [
        [size.dim_value if size.HasField('dim_value') else -1
         for size in value.type.tensor_type.shape.dim]
        for value in onnx.load_from_string(model).graph.input
    ]  # fmt: skip


def with_input_shapes(model: bytes, shapes: list[list[int]]) -> bytes:
    """The graph with fixed sizes; one that had open sizes is named by what they became."""
    if input_shapes(model) == shapes:
        return model
    graph = onnx.load_from_string(model)
    (hands,) = {
        size
        for before, after in zip(input_shapes(model), shapes, strict=True)
        for was, size in zip(before, after, strict=True)
        if was < 0
    }
    for value in (*graph.graph.input, *graph.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_value = hands
    part, slash, sampling = graph.doc_string.partition('/')
    graph.doc_string = f'{part}{hands}{slash}{sampling}'
    return bytes(graph.SerializeToString())


def session_of(model: bytes) -> Any:
    import onnxruntime

    digest = hashlib.sha256(model).hexdigest()
    if digest not in SESSIONS:
        SESSIONS[digest] = Session(onnxruntime.InferenceSession(model))
    return SESSIONS[digest]


class Session:
    """An ONNX graph with (is an input, shape, type) of its tensors."""

    def __init__(self, session: Any) -> None:
        self._session = session
        types = {'tensor(float)': 'f4', 'tensor(uint8)': 'u1', 'tensor(int64)': 'i8'}
        self.tensors = {
            item.name: (is_input, tuple(item.shape), np.dtype(types[item.type]))
            for is_input, items in ((True, session.get_inputs()), (False, session.get_outputs()))
            for item in items
        }

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [name for name, (is_input, _, _) in self.tensors.items() if not is_input]
        return dict(zip(names, self._session.run(names, inputs), strict=True))
