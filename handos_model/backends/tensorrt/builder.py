"""From an ONNX graph to a serialised TensorRT engine, by one path for TensorRT 10.3 to 11."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from handos_model.backends.tensorrt.library import TensorRtLibrary

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20
LEAST_WORKSPACE_BYTES = 256 * _MIB
MOST_WORKSPACE_BYTES = 4096 * _MIB


def workspace_bytes(free_bytes: int) -> int:
    """Half of the GPU's free memory within limits: the rest of the robot needs the other half."""
    return min(max(free_bytes // 2, LEAST_WORKSPACE_BYTES), MOST_WORKSPACE_BYTES)


def network_flags() -> int:
    """Strongly typed: precision is what the graph says.

    11 has removed EXPLICIT_BATCH and ignores STRONGLY_TYPED, both being always so; 10 ignores the
    former and needs the latter.
    """
    import tensorrt as trt

    names = ('EXPLICIT_BATCH', 'STRONGLY_TYPED')
    flags = (getattr(trt.NetworkDefinitionCreationFlag, name, None) for name in names)
    return sum(1 << int(flag) for flag in flags if flag is not None)


def build_engine(
    library: TensorRtLibrary, model: Path, hands: int | None, timings: bytes, workspace: int
) -> tuple[bytes, bytes]:
    """(serialised engine, timing cache with what this build added) of an ONNX file.

    `hands` is K of a decoder, whose file leaves it open. Takes minutes. Raises UserError where
    TensorRT cannot build it, with the cause.
    """
    import tensorrt as trt

    library.lines.clear()
    try:
        builder = trt.Builder(library.logger)
    except TypeError:  # pybind11's way to say that the library returned a null pointer
        raise library.error('its builder does not start') from None
    network = builder.create_network(network_flags())
    # The network refers to weights that the parser owns: it lives until the engine is built.
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(model.read_bytes(), str(model)):  # a window's weights lie beside it
        library.lines.extend(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise library.error('it cannot read the graph')
    if hands is not None:
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            sizes = list(tensor.shape)
            tensor.shape = tuple(hands if size < 0 else size for size in sizes)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if hasattr(trt.BuilderFlag, 'TF32'):
        # On by default, and 10 bits of mantissa are too few for what the graph keeps in float32:
        # sampling locations and coordinates.
        config.clear_flag(trt.BuilderFlag.TF32)
    cache = _timing_cache(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise library.error('the engine could not be built')
    return bytes(plan), timings if cache is None else bytes(cache.serialize())


def _timing_cache(config: trt.IBuilderConfig, timings: bytes) -> trt.ITimingCache | None:
    """Measured kernel times of earlier builds; an empty cache where those do not fit."""
    for content in (timings, b''):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None
