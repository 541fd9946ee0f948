"""`handos-quantise FOLDER`: add 8-bit graphs to exported weights, if they find as much.

The float graphs of FOLDER (of `handos export`) are calibrated on generated images and, with
--photos, on real ones. Then both precisions run held-out generated images on every CPU backend
that is here: where a score falls by more than --limit, nothing is written.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import onnx
import tyro
from rich.console import Console
from rich.progress import track

from handos_model.backends.base import Array, EngineOptions
from handos_model.backends.choice import why_unavailable
from handos_model.errors import UserError
from handos_model.export.byte_storage import store_bytes
from handos_model.export.half_storage import store_half
from handos_model.export.quantisation import observe, quantised
from handos_model.export.shared_weights import share_weights
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.preprocess import Closeup, Letterbox
from handos_model.selection import select_instances
from handos_model.weights.exported import (
    AccuracyGate,
    ExportedWeights,
    GraphFile,
    Part,
    Precision,
    graph_file_name,
)
from handos_model.weights.store import CHECKSUMS, sha256, write_checksums
from handos_training.data.sample import Sample
from handos_training.evaluate import HeldOutSynth, evaluate
from handos_training.evaluation.running_scores import Scores

BACKENDS = ('onnxruntime', 'openvino')
GENERATED_HW = (480, 640)
# What must not be lost: PA as the area under the curve of errors up to 50 mm, proper rotations.
GATED = ('found', 'pck_0.1', 'side_accuracy', 'auc_joints_proper')
CLOSER_BELOW_PX = PipelineConfig().closer_below_px  # so that a window's graphs are measured, too
INT8_FILE = '_int8.onnx'
PHOTO_SUFFIXES = {'.jpg', '.jpeg', '.png'}


@dataclass(frozen=True)
class QuantiseConfig:
    """Options of `handos-quantise`."""

    folder: Annotated[Path, tyro.conf.Positional]  # of `handos export`; the graphs are added there
    photos: Path | None = None  # real pictures to calibrate on, besides generated ones
    calibration: int = 256  # images of either kind; with 64, what is lost varies by 0.005
    images: int = 500  # held-out generated images that both precisions are measured on
    limit: float = 0.005  # largest loss of a score
    dry: bool = False  # measure only

    def __post_init__(self) -> None:
        if self.calibration < 1 or self.images < 1:
            raise UserError('--calibration and --images must be at least 1')


@dataclass(frozen=True)
class _HeldOut:
    """Generated images that are in memory, so that each precision sees them at once."""

    samples: Sequence[Sample]
    splits: tuple[str, ...] = ('test',)
    has_camera: bool = True

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def sequence(self, index: int) -> str | None:
        return None


def run(config: QuantiseConfig, console: Console | None = None) -> AccuracyGate:
    """Quantise, measure, and write what passed. Raises UserError where nothing did.

    Where 8 bits in all graphs lose too much, the decoders stay in float.
    """
    console = console or Console()
    exported = ExportedWeights.load(config.folder)
    if ('fp32', 'grid_sample') not in exported.variants():
        raise UserError(f'{config.folder} has no float graphs to start from: export them first')
    photos = _photos(config)
    total = config.calibration + config.images
    generated = HeldOutSynth(total, GENERATED_HW)
    indices = track(range(total), 'generating', console=console, transient=True)
    samples = [generated[i] for i in indices]
    photos += [_rgb(sample) for sample in samples[: config.calibration]]
    held_out = _HeldOut(samples[config.calibration :])
    with tempfile.TemporaryDirectory(dir=config.folder, prefix='.int8.') as partial:
        pictures = [_letterboxed(photo, exported) for photo in photos]
        given = [(exported, _write_graphs(exported, pictures, Path(partial)))]
        window = ExportedWeights.load_window(config.folder)
        if window is not None:
            views = _closeups(exported, window, photos, pictures)
            given.append((window, _write_graphs(window, views, Path(partial))))
        floats = _scores(exported, 'fp32', held_out, console)
        for decoders_too in (True, False):
            rounded = [_with_graphs(*one, Path(partial), decoders_too) for one in given]
            gate = _gate(config, floats, _scores(rounded[0], 'int8', held_out, console))
            for name, loss in gate.losses.items():
                score = gate.scores[name]
                console.print(f'{name}: {score + loss:.4f} -> {score:.4f}')
            if gate.worst <= config.limit:
                if not config.dry:
                    _move([replace(one, gates=(gate,)) for one in rounded], config.folder)
                return gate
            worst = max(gate.losses, key=gate.losses.__getitem__)
            what = 'all graphs' if decoders_too else 'the detector'
            console.print(f'8 bits in {what} lose {gate.worst:.4f} of {worst}')
    raise UserError(f'8 bits lose more than {config.limit:g}: nothing was written')


def _with_graphs(
    exported: ExportedWeights, graphs: Sequence[GraphFile], partial: Path, decoders_too: bool
) -> ExportedWeights:
    """The folder as it will be, in `partial`; decoders in float are the files that are there."""
    if not decoders_too:
        decoders = [
            replace(graph, precision='int8')
            for graph in exported.graphs
            if graph.hands is not None
            and (graph.precision, graph.sampling) == ('fp32', 'grid_sample')
        ]
        graphs = [*graphs[:1], *decoders]
    rounded = replace(
        exported,
        folder=partial,
        graphs=(*(graph for graph in exported.graphs if graph.precision != 'int8'), *graphs),
        gates=(),
    )
    for path in exported.folder.iterdir():  # what an engine reads besides the new graphs
        if path.is_file() and not (partial / path.name).exists():
            # No symbolic link: ONNX Runtime follows none to the weights that graphs share.
            shutil.copyfile(path, partial / path.name)
    rounded.manifest.write_text(rounded.to_json())
    return rounded


def _move(rounded: Sequence[ExportedWeights], folder: Path) -> None:
    """The new graphs and, last, their manifests into `folder`."""
    names = {
        graph.file
        for one in rounded
        for graph in one.graphs
        if graph.precision == 'int8' and graph.file.endswith(INT8_FILE)
    }
    for name in sorted(names):
        (rounded[0].folder / name).replace(folder / name)
    for one in rounded:
        one.manifest.write_text(one.to_json())
        one.manifest.replace(folder / one.manifest.name)
    for old in folder.glob(f'*{INT8_FILE}'):
        if old.name not in names:
            old.unlink()
    if (folder / CHECKSUMS).is_file():
        write_checksums(folder)


def _write_graphs(
    exported: ExportedWeights, pictures: Sequence[Array], folder: Path
) -> tuple[GraphFile, ...]:
    """The 8-bit twin of each float graph, the detector's first, calibrated on `pictures`."""
    from handos_model.backends.onnxruntime import OnnxGraph, session_options

    path = exported.path(None, 'fp32', 'grid_sample')
    detector = OnnxGraph(path, session_options(None))
    found = [
        {name: value.copy() for name, value in detector.infer({'image': picture}).items()}
        for picture in pictures
    ]
    written = []
    sizes = exported.hands('fp32', 'grid_sample')
    seen = [{'image': picture} for picture in pictures]
    parts: tuple[tuple[Part, Sequence[int | None], Sequence[Mapping[str, Array]]], ...] = (
        ('detector', [None], seen),
        ('decoder', sizes, list(_decoder_inputs(found, sizes[-1]))),
    )
    for part, of_hands, feeds in parts:
        model = onnx.load(exported.path(of_hands[-1], 'fp32', 'grid_sample'))
        small = quantised(model, observe(model, feeds, folder))
        if exported.storage == 'fp16':
            small = store_half(store_bytes(small))
        file = folder / graph_file_name(part, 'int8', 'grid_sample', exported.window is not None)
        if exported.window is not None:
            small = share_weights(small, folder / graph_file_name(part, 'int8', 'grid_sample'))
        onnx.save(small, file)
        operators = dict(sorted(Counter(node.op_type for node in small.graph.node).items()))
        written += [
            GraphFile(file.name, sha256(file), hands, 'int8', 'grid_sample', operators)
            for hands in of_hands
        ]
    return tuple(written)


def _decoder_inputs(
    found: Sequence[Mapping[str, Array]], hands: int
) -> Iterator[dict[str, Array]]:
    for one in found:
        scores, boxes = one['scores'][0], one['boxes_cxcywh'][0]
        rows = np.resize(select_instances(scores, boxes, 0.0, max_hands=hands), hands)
        yield {
            'features': one['features'],
            'queries': one['queries'][0, rows],
            'boxes_cxcywh': boxes[rows],
        }


def _scores(
    exported: ExportedWeights, precision: Precision, held_out: _HeldOut, console: Console
) -> dict[str, dict[str, float]]:
    """What the graphs in `precision` score on each CPU backend that is here."""
    result = {}
    for backend in BACKENDS:
        if why_unavailable(backend) is not None:
            continue
        options = EngineOptions(precision=precision, max_hands=4)
        measured = replace(PipelineConfig.paper(4), closer_below_px=CLOSER_BELOW_PX)
        pipeline = HandPipeline(exported.folder, backend, measured, options)
        counted = Scores(same_topology=True)
        label = f'{backend}, {precision}'
        indices = track(range(len(held_out)), label, console=console, transient=True)
        evaluate(held_out, pipeline, counted, indices, keep_vertices=False)  # type: ignore[arg-type]
        result[backend] = counted.summary()
    return result


def _gate(
    config: QuantiseConfig,
    floats: Mapping[str, Mapping[str, float]],
    rounded: Mapping[str, Mapping[str, float]],
) -> AccuracyGate:
    losses, scores, hands = {}, {}, 0
    for backend, summary in floats.items():
        hands = int(summary['hands'])
        for name in GATED:
            if name in summary:
                score = scores[f'{backend}.{name}'] = float(rounded[backend].get(name, 0.0))
                losses[f'{backend}.{name}'] = float(summary[name]) - score
    return AccuracyGate('int8', config.images, hands, config.limit, losses, scores)


def _rgb(sample: Sample) -> Array:
    return np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())


def _letterboxed(image: Array, exported: ExportedWeights) -> Array:
    """The network's input [1,H,W,3]."""
    letterbox = Letterbox((image.shape[0], image.shape[1]), exported.input_size_hw)
    buffer = letterbox.buffer()
    letterbox.apply(image, buffer)
    return buffer


def _closeups(
    exported: ExportedWeights,
    window: ExportedWeights,
    photos: Sequence[Array],
    pictures: Sequence[Array],
) -> list[Array]:
    """A window's inputs [1,h,w,3]: what is most like a hand in each photo, seen from near."""
    from handos_model.backends.onnxruntime import OnnxGraph, session_options

    assert window.window is not None
    detector = OnnxGraph(exported.path(None, 'fp32', 'grid_sample'), session_options(None))
    views = []
    for photo, picture in zip(photos, pictures, strict=True):
        found = detector.infer({'image': picture})
        best = found['boxes_cxcywh'][0, int(found['scores'][0].argmax())]
        size = photo.shape[0], photo.shape[1]
        box_px = Letterbox(size, exported.input_size_hw).boxes_to_image(best)
        closeup = Closeup.about(
            box_px, size, window.window.whole_hw, window.window.corner_px, window.input_size_hw
        )
        view = np.empty((1, *window.input_size_hw, 3), np.uint8)
        closeup.apply(photo, view)
        views.append(view)
    return views


def _photos(config: QuantiseConfig) -> list[Array]:
    """Some pictures below `--photos`, RGB, evenly spread over all."""
    if config.photos is None:
        return []
    files = [p for p in sorted(config.photos.rglob('*')) if p.suffix.lower() in PHOTO_SUFFIXES]
    read = (cv2.imread(str(path)) for path in files[:: max(1, len(files) // config.calibration)])
    pictures = [np.ascontiguousarray(image[..., ::-1]) for image in read if image is not None]
    if not pictures:
        raise UserError(f'{config.photos} has no picture (.jpg, .png)')
    return pictures[: config.calibration]


def main() -> None:
    """Entry point of `handos-quantise`."""
    try:
        gate = run(tyro.cli(QuantiseConfig, description=__doc__))
    except UserError as error:
        print(f'handos-quantise: {error}', file=sys.stderr)
        raise SystemExit(2) from None
    print(f'8 bits lose at most {max(gate.worst, 0):.4f} ({gate.hands} hands)')


if __name__ == '__main__':
    main()
