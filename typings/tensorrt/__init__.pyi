# The calls of TensorRT's Python API that HandOS uses, for type checking where TensorRT itself is
# not installed. Written from NVIDIA's public documentation of 10.3 to 11.4; what only one of the
# two generations has is reached by `getattr` and is not here.

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import Buffer

__version__: str

class ILogger:
    class Severity:
        INTERNAL_ERROR: ClassVar[ILogger.Severity]
        ERROR: ClassVar[ILogger.Severity]
        WARNING: ClassVar[ILogger.Severity]
        INFO: ClassVar[ILogger.Severity]
        VERBOSE: ClassVar[ILogger.Severity]

    def __init__(self) -> None: ...
    def log(self, severity: ILogger.Severity, msg: str) -> None: ...

def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool: ...

class IHostMemory:
    nbytes: int
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Dims:
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...

class DataType:
    FLOAT: ClassVar[DataType]
    HALF: ClassVar[DataType]
    INT8: ClassVar[DataType]
    INT32: ClassVar[DataType]
    INT64: ClassVar[DataType]
    BOOL: ClassVar[DataType]
    UINT8: ClassVar[DataType]

class TensorIOMode:
    NONE: ClassVar[TensorIOMode]
    INPUT: ClassVar[TensorIOMode]
    OUTPUT: ClassVar[TensorIOMode]

class TensorLocation:
    DEVICE: ClassVar[TensorLocation]
    HOST: ClassVar[TensorLocation]

class MemoryPoolType:
    WORKSPACE: ClassVar[MemoryPoolType]

class NetworkDefinitionCreationFlag: ...  # its members differ between 10 and 11

class BuilderFlag:
    TF32: ClassVar[BuilderFlag]

class ITimingCache:
    def serialize(self) -> IHostMemory: ...

class IBuilderConfig:
    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None: ...
    def clear_flag(self, flag: BuilderFlag) -> None: ...
    def create_timing_cache(self, serialized_timing_cache: Buffer) -> ITimingCache | None: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...

class ITensor:
    @property
    def shape(self) -> Dims: ...
    @shape.setter
    def shape(self, value: tuple[int, ...]) -> None: ...

class INetworkDefinition:
    num_inputs: int
    num_outputs: int
    def get_input(self, index: int) -> ITensor: ...

class ParserError:
    def desc(self) -> str: ...

class OnnxParser:
    num_errors: int
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None: ...
    def parse(self, model: Buffer, path: str | None = None) -> bool: ...
    def get_error(self, index: int) -> ParserError: ...

class Builder:
    def __init__(self, logger: ILogger) -> None: ...
    def create_network(self, flags: int = 0) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None: ...

class IExecutionContext:
    def set_tensor_address(self, name: str, memory: int) -> bool: ...
    def execute_async_v3(self, stream_handle: int) -> bool: ...

class ICudaEngine:
    num_io_tensors: int
    def get_tensor_name(self, index: int) -> str: ...
    def get_tensor_mode(self, name: str) -> TensorIOMode: ...
    def get_tensor_dtype(self, name: str) -> DataType: ...
    def get_tensor_shape(self, name: str) -> Dims: ...
    def get_tensor_location(self, name: str) -> TensorLocation: ...
    def create_execution_context(self) -> IExecutionContext | None: ...

class Runtime:
    def __init__(self, logger: ILogger) -> None: ...
    def deserialize_cuda_engine(self, serialized_engine: Buffer) -> ICudaEngine | None: ...
