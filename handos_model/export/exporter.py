"""Write the network as ONNX graphs, and only if they compute what torch computes."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias, get_args
from unittest.mock import patch

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from handos_model.backends.base import Array
from handos_model.backends.parity import (
    beyond_limits,
    decoder_parity,
    detector_parity,
    made_up_images,
)
from handos_model.errors import UserError
from handos_model.export.half_precision import to_half
from handos_model.export.half_storage import rounded_weights, store_half
from handos_model.export.plugin_sampling import sample_by_plugin
from handos_model.export.shared_weights import share_weights
from handos_model.network.attention import SAMPLERS
from handos_model.network.detectors.protocol import Sampler
from handos_model.network.detectors.sampling import detector_sampling
from handos_model.network.graphs import (
    DECODER_INPUTS,
    DECODER_OUTPUTS,
    DETECTOR_INPUTS,
    DETECTOR_OUTPUTS,
    build_graphs,
)
from handos_model.network.handos import HandOS
from handos_model.network.lean.graphs import WINDOW_PX, lean_graphs, window_place
from handos_model.network.lean.window import Window
from handos_model.selection import select_instances
from handos_model.weights.exported import (
    HANDS,
    MANIFEST,
    WINDOW_MANIFEST,
    ExportedWeights,
    GraphFile,
    GraphSampling,
    Part,
    Precision,
    Storage,
    WindowPlace,
    graph_file_name,
)
from handos_model.weights.store import CONFIG, sha256

MOST_HANDS = 32
WINDOW_HANDS = 1  # the one looked at
PER_HAND = ('queries', 'boxes_cxcywh')  # inputs of a decoder that have a row a hand
OPSET = 18  # TensorRT computes the GridSample of opset 20 wrongly; 17 is the first with LayerNorm
Report: TypeAlias = Callable[[str], None]
Inputs: TypeAlias = tuple[tuple[Tensor, ...], ...]

_SAMPLERS: dict[GraphSampling, Sampler] = {
    'grid_sample': SAMPLERS['grid_sample'],
    'gather': SAMPLERS['gather'],
    'plugin': sample_by_plugin,
}


@dataclass(frozen=True)
class ExportConfig:
    """What to write: every precision in every sampling, each a detector and a decoder.

    A decoder is compared with torch for each K of `hands`. Networks that have a lean form also get
    graphs of a square window in the middle of their input, by which one hand is seen closer.
    """

    precisions: tuple[Precision, ...] = ('fp32',)
    samplings: tuple[GraphSampling, ...] = ('grid_sample',)
    hands: tuple[int, ...] = (1, 2, 4)
    storage: Storage = 'fp32'  # fp16 halves the files and computes the same with rounded weights
    window_px: int = WINDOW_PX  # side; 0, or more than half of the input's area: no such graphs

    def __post_init__(self) -> None:
        for name, given, known in (
            ('precision', self.precisions, get_args(Precision)),
            ('sampling', self.samplings, get_args(GraphSampling)),
            ('storage', (self.storage,), get_args(Storage)),
        ):
            if 'int8' in given:
                raise UserError('int8 needs pictures to measure on: export, then handos-quantise')
            if not given or set(given) - set(known):
                raise UserError(f'{name} {", ".join(given) or "(none)"}: give {", ".join(known)}')
        if not self.hands or min(self.hands) < 1 or max(self.hands) > MOST_HANDS:
            raise UserError(f'hands {self.hands}: give numbers from 1 to {MOST_HANDS}')


@dataclass(frozen=True)
class _Case:
    """One graph with the torch inputs it is traced and compared with."""

    part: Part
    module: nn.Module  # what the graph must compute
    lean: nn.Module  # the same in few operations, traced where it samples as the network does
    traced: tuple[Tensor, ...]
    inputs: dict[int | None, Inputs]  # that both are compared on, by K: None for the detector
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    is_window: bool = False


def export(
    network: HandOS,
    folder: Path,
    config: ExportConfig,
    *,
    licence: str,
    source_sha256: str,
    images: Sequence[Array] = (),
    report: Report = lambda line: None,
) -> ExportedWeights:
    """Write the graphs of `network` and their manifest to `folder`.

    Each is compared with torch on `images` (uint8 [H,W,3] of the network's size; made-up ones
    where none are given), for half storage with torch's weights rounded alike. All are written
    beside `folder` and moved there when all have passed; UserError, and nothing written, where
    one fails. The plugin's graphs cannot run outside TensorRT and are compared on the robot.
    """
    if network.config.decoder.stage != 'full':
        raise UserError('weights of the 2D stage have no mesh: export those of the full stage')
    network = network.eval().cpu()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        partial = stack.enter_context(
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=f'.{folder.name}.')
        )
        if config.storage == 'fp16':
            stack.enter_context(rounded_weights(network))
        images = images or made_up_images(network.config.input_size_hw)

        def written(
            cases: list[_Case], samplings: Sequence[GraphSampling] = config.samplings
        ) -> tuple[GraphFile, ...]:
            return tuple(
                graph
                for sampling in samplings
                for case in cases
                for graph in _write_case(network, Path(partial), case, sampling, config, report)
            )

        exported = ExportedWeights(
            folder=folder,
            name=network.config.name,
            licence=licence,
            opset=OPSET,
            input_size_hw=network.config.input_size_hw,
            template_hash=str(network.config.template_hash),
            source_sha256=source_sha256,
            graphs=written(_cases(network, config, images)),
            storage=config.storage,
        )
        (Path(partial) / CONFIG).write_text(network.config.to_json())
        (Path(partial) / MANIFEST).write_text(exported.to_json())
        place = window_place(network, config.window_px)
        if place is not None and 'grid_sample' in config.samplings:
            cases = _window_cases(network, place, config.window_px, images)
            window = replace(
                exported,
                input_size_hw=(config.window_px, config.window_px),
                graphs=written(cases, ('grid_sample',)),
                window=place,
            )
            (Path(partial) / WINDOW_MANIFEST).write_text(window.to_json())
        folder.mkdir(exist_ok=True)
        (folder / WINDOW_MANIFEST).unlink(missing_ok=True)
        # The manifests go last: an interrupted move leaves files that the old ones refuse.
        for path in sorted(Path(partial).iterdir(), key=lambda path: path.suffix == '.json'):
            path.replace(folder / path.name)
    return exported


@torch.no_grad()
def _window_cases(
    network: HandOS, place: WindowPlace, side_px: int, images: Sequence[Array]
) -> list[_Case]:
    """Compared with themselves in torch: the plain network has no windows."""
    detector, decoder = build_graphs(network)
    window = Window.at(decoder.spatial_shapes, place, (side_px, side_px))
    lean_detector, lean_decoder = lean_graphs(detector, decoder, window)
    seen = [place.cut(image, (side_px, side_px)).copy() for image in images]
    frames = tuple((torch.from_numpy(image)[None],) for image in seen)
    found = [lean_detector(*frame) for frame in frames]
    decoded: dict[int | None, Inputs] = {WINDOW_HANDS: tuple(_of_hands(found, WINDOW_HANDS))}
    traced = next(_of_hands(found, 2))  # see `_cases`
    of_detector = (DETECTOR_INPUTS, DETECTOR_OUTPUTS)
    of_decoder = (DECODER_INPUTS, DECODER_OUTPUTS)
    return [
        _Case('detector', lean_detector, lean_detector, frames[0], {None: frames}, *of_detector,
              is_window=True),
        _Case('decoder', lean_decoder, lean_decoder, traced, decoded, *of_decoder,
              is_window=True),
    ]  # fmt: skip


def _of_hands(found: Sequence[tuple[Tensor, ...]], hands: int) -> Iterator[tuple[Tensor, ...]]:
    """A decoder's inputs for K `hands` from each of a detector's outputs."""
    for features, queries, boxes, scores in found:
        best = select_instances(scores[0].numpy(), boxes[0].numpy(), 0.0, max_hands=hands)
        rows = torch.from_numpy(np.resize(best, hands))
        yield features, queries[0, rows], boxes[0, rows]


@torch.no_grad()
def _cases(network: HandOS, config: ExportConfig, images: Sequence[Array]) -> list[_Case]:
    detector, decoder = build_graphs(network)
    lean_detector, lean_decoder = lean_graphs(detector, decoder)
    frames = tuple((torch.from_numpy(image)[None],) for image in images)
    found = [detector(*frame) for frame in frames]
    # A size of 1 would be traced as the constant that it is, and any of several stays open.
    traced = next(_of_hands(found, 2))
    decoded: dict[int | None, Inputs] = {
        K: tuple(_of_hands(found, K)) for K in sorted(config.hands)
    }
    of_detector = (DETECTOR_INPUTS, DETECTOR_OUTPUTS)
    of_decoder = (DECODER_INPUTS, DECODER_OUTPUTS)
    return [
        _Case('detector', detector, lean_detector, frames[0], {None: frames}, *of_detector),
        _Case('decoder', decoder, lean_decoder, traced, decoded, *of_decoder),
    ]


def _write_case(
    network: HandOS,
    folder: Path,
    case: _Case,
    sampling: GraphSampling,
    config: ExportConfig,
    report: Report,
) -> list[GraphFile]:
    with _sampling(network, sampling):
        traced = case.lean if sampling == 'grid_sample' else case.module
        names = case.input_names, case.output_names
        models = {'': (to_onnx(traced, case.traced, *names), tuple(case.inputs))}
        if case.part == 'decoder' and not _is_open(models[''][0]):
            # Tracing the plain decoder fixes K: a file for each.
            models = {
                f'_{K}': (to_onnx(traced, inputs[0], *names, open_hands=False), (K,))
                for K, inputs in case.inputs.items()
            }
    written = []
    for precision, (suffix, (model, sizes)) in product(config.precisions, models.items()):
        path = folder / graph_file_name(case.part, precision, sampling, case.is_window)
        path = path.with_stem(path.stem + suffix)
        variant = model if precision == 'fp32' else to_half(model)
        variant = variant if config.storage == 'fp32' else store_half(variant)
        if case.is_window:
            variant = share_weights(
                variant, folder / graph_file_name(case.part, precision, sampling)
            )
        onnx.save(variant, path)
        operators = Counter(node.op_type for node in variant.graph.node)
        for hands in sizes:
            parity = {} if sampling == 'plugin' else _parity(case, hands, path, network)
            told = ', '.join(f'{name} {value:.3g}' for name, value in parity.items())
            report(f'{path.name}{"" if hands is None else f" of {hands}"}: {told}')
            if wrong := beyond_limits(parity, precision):
                raise UserError(
                    f'{path.name} differs from torch by {", ".join(wrong)}: nothing was written. '
                    'Try another --sampling or --precision, or another version of torch or '
                    'onnxscript'
                )
            written.append(
                GraphFile(
                    file=path.name,
                    sha256=sha256(path),
                    hands=hands,
                    precision=precision,
                    sampling=sampling,
                    operators=dict(sorted(operators.items())),
                    parity=parity,
                )
            )
    return written


def _sampling(network: HandOS, sampling: GraphSampling) -> AbstractContextManager[Any]:
    """Within it, decoder and detector sample as named; the network's own choice comes back."""
    stack = ExitStack()
    stack.callback(network.set_sampler, SAMPLERS[network.config.decoder.sampling])
    network.set_sampler(_SAMPLERS[sampling])
    if sampling != 'grid_sample':
        stack.enter_context(detector_sampling(network.detector, _SAMPLERS[sampling]))
    return stack


@contextmanager
def _captures_kept(module: nn.Module) -> Iterator[None]:
    """Tracing replaces the dicts that modules hold by copies; hooks write into the originals."""
    kept = [
        (part, vars(part)['_captured']) for part in module.modules() if '_captured' in vars(part)
    ]
    try:
        yield
    finally:
        for part, captured in kept:
            part._captured = captured


@torch.no_grad()
def to_onnx(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    open_hands: bool = True,
) -> onnx.ModelProto:
    """Trace `module` with static shapes, but for K where it is to stay open.

    The same weights give the same bytes.
    """
    # transformers checks shapes by operators that have no ONNX form, unless it is told not to.
    quiet = patch.dict(os.environ, {'TRANSFORMERS_DISABLE_TORCH_CHECK': '1'})
    K = torch.export.Dim(HANDS, min=1, max=MOST_HANDS)
    with quiet, _captures_kept(module):
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=[
                {0: K} if open_hands and name in PER_HAND else None for name in input_names
            ],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    return model


def _is_open(model: onnx.ModelProto) -> bool:
    """Whether K of a decoder's inputs is left to whoever opens the file."""
    shapes = (value.type.tensor_type.shape for value in model.graph.input)
    return any(size.dim_param == HANDS for shape in shapes for size in shape.dim)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what names the machine and the run: stack traces, source paths, doc strings."""
    model.doc_string = model.graph.doc_string = ''
    model.graph.name = 'handos'
    del model.metadata_props[:], model.graph.metadata_props[:]
    graph = model.graph
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ''
        del item.metadata_props[:]


@torch.no_grad()
def _parity(case: _Case, hands: int | None, path: Path, network: HandOS) -> dict[str, float]:
    """The largest errors over all inputs of K `hands`, ONNX Runtime against torch."""
    from handos_model.backends.onnxruntime import OnnxGraph, session_options

    graph = OnnxGraph(path, session_options(None, hands))
    compare = detector_parity if hands is None else decoder_parity
    worst: dict[str, float] = {}
    for inputs in case.inputs[hands]:
        named = zip(case.output_names, case.module(*inputs), strict=True)
        reference = {name: value.numpy() for name, value in named}
        arrays = [np.ascontiguousarray(value.numpy()) for value in inputs]
        found = graph.infer(dict(zip(case.input_names, arrays, strict=True)))
        errors = compare(reference, found, network.config.input_size_hw)
        worst = {name: max(value, worst.get(name, 0.0)) for name, value in errors.items()}
    return worst
