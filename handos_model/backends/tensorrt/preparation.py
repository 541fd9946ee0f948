"""Engines that may be used: built, compared with ONNX Runtime, and kept with the verdict.

Several TensorRT releases silently miscompute deformable attention that is written with GridSample
(NVIDIA/TensorRT issues 4813, 4646, 4853). So every graph is taken in the first sampling variant
whose engine computes on this machine what ONNX Runtime computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from handos_model.backends.base import (
    Array,
    Engine,
    EngineOptions,
    Graph,
    decoder_sizes,
)
from handos_model.backends.parity import (
    beyond_limits,
    decoder_parity,
    detector_parity,
    made_up_images,
)
from handos_model.backends.tensorrt.cache import EngineCache, EngineKey, Machine, StoredEngine
from handos_model.backends.tensorrt.cuda_driver import GpuFaultError, GpuStateError
from handos_model.errors import UserError
from handos_model.selection import select_instances
from handos_model.weights.exported import ExportedWeights, GraphSampling, Precision

# In the order in which they are tried: GridSample is the smallest graph, the plugin the fastest
# where it is right, and gather consists of nothing but arithmetic that every release gets right.
SAMPLINGS: tuple[GraphSampling, ...] = ('grid_sample', 'plugin', 'gather')


class Toolkit(Protocol):
    """TensorRT on this machine."""

    machine: Machine

    def build(self, model: Path, hands: int | None, timings: bytes) -> tuple[bytes, bytes]:
        """See `builder.build_engine`."""
        ...

    def open(self, plan: bytes, hands: int | None) -> Graph:
        """The graph of a serialised engine: of the detector where `hands` is None."""
        ...


@dataclass(frozen=True)
class Prepared:
    """An engine that may be used, in the sampling variant that was found right."""

    key: EngineKey
    sampling: GraphSampling
    engine: StoredEngine


class EnginePreparation:
    """The engines of one exported folder, in one precision, for one machine."""

    def __init__(
        self,
        exported: ExportedWeights,
        options: EngineOptions,
        toolkit: Toolkit,
        cache: EngineCache,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._exported, self._toolkit, self._cache = exported, toolkit, cache
        self._report = report
        self.precision: Precision = choose_precision(exported, options)
        sizes = decoder_sizes(exported, options, self.precision)
        self.graphs: tuple[int | None, ...] = (None, *sizes)

    def ready(self) -> dict[int | None, Prepared] | None:
        """What is on disk and may be used; None where something is still to be built."""
        found: dict[int | None, Prepared] = {}
        for hands in self.graphs:
            prepared = self._first(hands, lambda *_: None)
            if prepared is None:
                return None
            found[hands] = prepared
        return found

    def prepare(
        self, reference: Engine, images: Sequence[Array] = ()
    ) -> dict[int | None, Prepared]:
        """Build and compare what is missing; takes minutes.

        `reference` is ONNX Runtime. `images` are uint8 [H,W,3] of the network's size as the
        camera gives them; where there are none, made-up ones serve. Raises UserError where no
        variant of a graph can be built and is right.
        """
        shown = images or made_up_images(self._exported.input_size_hw)

        def build(key: EngineKey, model: Path, hands: int | None) -> StoredEngine:
            return self._build(key, model, hands, reference, shown, len(images))

        found: dict[int | None, Prepared] = {}
        for hands in self.graphs:
            prepared = self._first(hands, build)
            assert prepared is not None
            found[hands] = prepared
        return found

    def refuse_next(self, why: str) -> None:
        """Remember that the engine that was to be built next may not be: its builder crashed."""

        def refuse(key: EngineKey, model: Path, hands: int | None) -> StoredEngine | None:
            with self._cache.building(key):
                self._cache.store(key, StoredEngine(b'', 0, refused=why))
            return None

        for hands in self.graphs:
            if self._first(hands, refuse) is None:
                return

    def confirm(
        self, prepared: Mapping[int | None, Prepared], found: Engine, reference: Engine,
        images: Sequence[Array],
    ) -> list[str]:  # fmt: skip
        """Compare open engines on real frames and remember the verdict; what was wrong."""
        problems = []
        for hands, item in prepared.items():
            graph = found.detector if hands is None else found.decoders[hands]
            try:
                engine = self._judge(item.engine, hands, graph, reference, images, len(images))
            except GpuFaultError as error:
                self._cache.store(item.key, replace(item.engine, refused=str(error)))
                raise
            if engine.refused:
                problems.append(f'{_name(hands)}: {engine.refused}')
            try:
                with self._cache.building(item.key):
                    self._cache.store(item.key, engine)
            except UserError as error:
                if engine.refused:
                    raise
                self._report(f'{error}; until then engines are compared again at every start')
        return problems

    def _first(
        self,
        hands: int | None,
        build: Callable[[EngineKey, Path, int | None], StoredEngine | None],
    ) -> Prepared | None:
        """The first variant with an engine that may be used; `build` makes what is missing."""
        refused = []
        for sampling in SAMPLINGS:
            if (self.precision, sampling) not in self._exported.variants():
                continue
            model = self._exported.path(hands, self.precision, sampling)
            digest = hashlib.sha256(model.read_bytes())
            if hands is not None:  # one file for all K
                digest.update(f'for {hands} hands'.encode())
            key = EngineKey(digest.hexdigest(), self.precision, self._toolkit.machine)
            engine = self._cache.load(key) or build(key, model, hands)
            if engine is None:
                return None
            if not engine.refused:
                return Prepared(key, sampling, engine)
            refused.append(f'{sampling}: {engine.refused}')
        raise UserError(
            f'no TensorRT engine of {_name(hands)} may be used on this machine '
            f'({"; ".join(refused)}): export more variants '
            '(handos export WEIGHTS --sampling grid_sample,plugin,gather), use --precision fp32, '
            'or another version of TensorRT'
        )

    def _build(
        self,
        key: EngineKey,
        model: Path,
        hands: int | None,
        reference: Engine,
        images: Sequence[Array],
        frames: int,
    ) -> StoredEngine:
        with self._cache.building(key):
            engine = self._cache.load(key)  # another process may have built it meanwhile
            if engine is not None:
                return engine
            machine = self._toolkit.machine
            self._report(f'building a TensorRT engine of {_name(hands)} ({key.precision})')
            try:
                known = self._cache.load_timings(machine)
                plan, timings = self._toolkit.build(model, hands, known)
                self._cache.store_timings(machine, timings)
                graph = self._toolkit.open(plan, hands)
                engine = self._judge(
                    StoredEngine(plan, frames), hands, graph, reference, images, frames
                )
            except GpuFaultError as error:  # its fault, but nothing more can be built in here
                self._cache.store(key, StoredEngine(b'', frames, refused=str(error)))
                raise
            except GpuStateError:  # says nothing about the engine
                raise
            except UserError as error:
                engine = StoredEngine(b'', frames, refused=str(error))
            self._cache.store(key, engine)
            verdict = (
                f'refused: {engine.refused}' if engine.refused else 'agrees with ONNX Runtime'
            )
            self._report(f'engine of {_name(hands)}: {verdict}')
            return engine

    def _judge(
        self,
        engine: StoredEngine,
        hands: int | None,
        graph: Graph,
        reference: Engine,
        images: Sequence[Array],
        frames: int,
    ) -> StoredEngine:
        errors = graph_parity(hands, graph, reference, images, self._exported.whole_hw)
        wrong = beyond_limits(errors, self.precision)
        words = f'differs from ONNX Runtime by {", ".join(wrong)}' if wrong else ''
        return replace(engine, frames=frames, parity=errors, refused=words)


def graph_parity(
    hands: int | None,
    graph: Graph,
    reference: Engine,
    images: Sequence[Array],
    whole_hw: tuple[int, int],
) -> dict[str, float]:
    """Largest errors over `images` of the detector, or of the decoder of so many hands."""
    worst: dict[str, float] = {}
    for image in images:
        inputs: dict[str, Array] = {'image': np.ascontiguousarray(image[None])}
        truth = _to_host(reference.detector.infer(inputs))
        if hands is None:
            errors = detector_parity(truth, _to_host(graph.infer(inputs)), whole_hw)
        else:
            scores, boxes = truth['scores'][0], truth['boxes_cxcywh'][0]
            rows = np.resize(select_instances(scores, boxes, 0.0, max_hands=hands), hands)
            inputs = {
                'features': truth['features'],
                'queries': np.ascontiguousarray(truth['queries'][0, rows]),
                'boxes_cxcywh': np.ascontiguousarray(boxes[rows]),
            }
            true_hands = _to_host(reference.decoders[hands].infer(inputs))
            errors = decoder_parity(true_hands, _to_host(graph.infer(inputs)), whole_hw)
        for name, value in errors.items():
            worst[name] = float(np.maximum(value, worst.get(name, 0.0)))  # NaN stays NaN
    return worst


def choose_precision(exported: ExportedWeights, options: EngineOptions) -> Precision:
    """fp16 where it was exported and nothing else asked for. Raises UserError."""
    there = {precision for precision, _ in exported.variants()}
    wanted = options.precision
    if wanted == 'auto':
        wanted = 'fp16' if 'fp16' in there else 'fp32'
    if wanted not in ('fp32', 'fp16') or wanted not in there:
        raise UserError(
            f'{exported.folder} has no graphs in {wanted} for TensorRT, only '
            f'{", ".join(sorted(there))}: export with --precision fp32,fp16'
        )
    return wanted


def _name(hands: int | None) -> str:
    return 'the detector' if hands is None else f'the decoder of {hands}'


def _to_host(outputs: Mapping[str, Any]) -> dict[str, Array]:
    return {
        name: np.array(value if isinstance(value, np.ndarray) else value.numpy())
        for name, value in outputs.items()
    }
