"""What the pipeline asks of a backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy.typing as npt

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.weights.exported import (
    ExportedWeights,
    GraphSampling,
    Precision,
    WindowPlace,
)

Array: TypeAlias = npt.NDArray[Any]
RequestedPrecision: TypeAlias = Literal['auto', 'fp32', 'fp16', 'bf16', 'int8']


class Graph(Protocol):
    """One network graph with fixed shapes.

    Outputs belong to the graph and are overwritten by its next call. An output may stay on the
    device as a handle that the graphs of the same engine take as input; `features` does so.
    """

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once; the names are the graph's own."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """How to open the graphs of a weights folder."""

    precision: RequestedPrecision = 'auto'  # auto = the fastest that passed its comparison
    max_hands: int = 4  # decoders for more hands than this stay closed
    threads: int | None = None  # of a CPU backend; None = the cores that this process may use
    window: bool = True  # open the graphs of a window, too, where the weights have them
    # The template of the weights (None: the embedded one), for torch, which builds the network.
    hand_model: HandModel | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.max_hands < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError('max_hands and threads must be at least 1')


@dataclass
class Engine:
    """The graphs of one weights folder, opened by one backend."""

    name: str  # as a person reads it: 'openvino on CPU, fp32'
    detector: Graph  # image -> features, queries, boxes_cxcywh, scores
    decoders: Mapping[int, Graph]  # number of hands K -> features, queries, boxes -> hands
    precision: str
    warmed: bool = False  # every graph runs once before it is handed out
    # The same network's graphs for another input size; None where graphs have one size.
    at_size: Callable[[tuple[int, int]], Engine] | None = None
    # The same network's graphs for a window of the input; None where there are none.
    window: WindowEngine | None = None


@dataclass
class WindowEngine:
    """Graphs that see a window of the input, and answer in the coordinates of the whole."""

    place: WindowPlace
    size_hw: tuple[int, int]
    graphs: Engine


def with_window(
    weights: Path,
    options: EngineOptions,
    open_graphs: Callable[[ExportedWeights, EngineOptions], Engine],
) -> Engine:
    """The graphs of an exported folder, those of its window among them where `options` say so.

    A window gets half of the threads, being too small to keep more busy: on both of two cores it
    took a fifth less time with OpenVINO, more with ONNX Runtime, and 1.4 times the CPU time.
    """
    engine = open_graphs(ExportedWeights.load(weights), options)
    exported = ExportedWeights.load_window(weights) if options.window else None
    if exported is not None and exported.window is not None:
        threads = max(1, (options.threads or usable_cores()) // 2)
        graphs = open_graphs(exported, replace(options, threads=threads))
        engine.window = WindowEngine(exported.window, exported.input_size_hw, graphs)
    return engine


def usable_cores() -> int:
    """Cores that this process may use; containers and taskset often allow fewer than there are."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_variant(
    exported: ExportedWeights, options: EngineOptions, prefer: Precision
) -> tuple[Precision, GraphSampling]:
    """The precision asked for, or preferred, or there; in a sampling that ONNX itself defines."""
    variants = [v for v in exported.variants() if v[1] != 'plugin']
    wanted = prefer if options.precision == 'auto' else options.precision
    for precision, sampling in variants:
        if precision == wanted:
            return precision, sampling
    if options.precision != 'auto' or not variants:
        how = 'handos-quantise' if wanted == 'int8' else f'handos export --precision {wanted}'
        raise UserError(
            f'{exported.folder} has no graphs in {wanted}, only {exported.variants()}: '
            f'choose another precision, or make them by {how}'
        )
    return variants[0]


def decoder_sizes(
    exported: ExportedWeights,
    options: EngineOptions,
    precision: Precision,
    sampling: GraphSampling | None = None,
) -> list[int]:
    """The K to open: all up to the first that holds `max_hands`; of any sampling where None."""
    samplings = {graph.sampling for graph in exported.graphs} if sampling is None else {sampling}
    sizes = sorted({k for one in samplings for k in exported.hands(precision, one)})
    if not sizes:
        raise UserError(f'{exported.folder} has no decoder: export the weights again')
    enough = next((k for k in sizes if k >= options.max_hands), sizes[-1])
    return [k for k in sizes if k <= enough]
