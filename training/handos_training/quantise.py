"""`handos-quantise FOLDER`: add 8-bit graphs to exported weights, if they find as much.

The float graphs of FOLDER (of `handos export`) are calibrated on generated images and, with
--photos, on real ones. Then both precisions run held-out generated images on every CPU backend
that is here: where a score falls by more than --limit, nothing is written.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import onnx
import tyro
from rich.console import Console
from rich.progress import track

from handos_model.backends.base import Array, EngineOptions
from handos_model.backends.choice import why_unavailable
from handos_model.errors import UserError
from handos_model.export.half_storage import store_half
from handos_model.export.quantisation import observe, quantised
from handos_model.pipeline import HandPipeline, PipelineConfig
from handos_model.preprocess import Letterbox
from handos_model.selection import select_instances
from handos_model.weights.exported import (
    MANIFEST,
    AccuracyGate,
    ExportedWeights,
    GraphFile,
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
PHOTO_SUFFIXES = {'.jpg', '.jpeg', '.png'}


@dataclass(frozen=True)
class QuantiseConfig:
    """Options of `handos-quantise`."""

    folder: Annotated[Path, tyro.conf.Positional]  # of `handos export`; the graphs are added there
    photos: Path | None = None  # real pictures to calibrate on, besides generated ones
    calibration: int = 64  # images of either kind
    images: int = 400  # held-out generated images that both precisions are measured on
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
    """Quantise, measure, and write what passed. Raises UserError where it did not."""
    console = console or Console()
    exported = ExportedWeights.load(config.folder)
    if ('fp32', 'grid_sample') not in exported.variants():
        raise UserError(f'{config.folder} has no float graphs to start from: export them first')
    total = config.calibration + config.images
    generated = HeldOutSynth(total, GENERATED_HW)
    samples = [
        generated[i] for i in track(range(total), 'generating', console=console, transient=True)
    ]
    pictures = [_letterboxed(_rgb(sample), exported) for sample in samples[: config.calibration]]
    pictures += _photos(config, exported)
    held_out = _HeldOut(samples[config.calibration :])
    with tempfile.TemporaryDirectory(dir=config.folder, prefix='.int8.') as partial:
        graphs = _write_graphs(exported, pictures, Path(partial))
        rounded = replace(
            exported,
            folder=Path(partial),
            graphs=tuple(graph for graph in exported.graphs if graph.precision != 'int8') + graphs,
            gates=tuple(gate for gate in exported.gates if gate.precision != 'int8'),
        )
        _link_others(exported, rounded)
        gate = _measure(config, rounded, held_out, console)
        for name, loss in gate.losses.items():
            console.print(f'{name}: {gate.scores[name] + loss:.4f} -> {gate.scores[name]:.4f}')
        if not gate.worst <= config.limit:
            raise UserError(
                f'8 bits lose {gate.worst:.4f} of {max(gate.losses, key=gate.losses.__getitem__)} '
                f'(limit {config.limit:g}): nothing was written'
            )
        if not config.dry:
            for graph in graphs:
                (Path(partial) / graph.file).replace(config.folder / graph.file)
            final = replace(rounded, folder=config.folder, gates=(*rounded.gates, gate))
            manifest = Path(partial) / MANIFEST
            manifest.unlink(missing_ok=True)
            manifest.write_text(final.to_json())
            manifest.replace(config.folder / MANIFEST)
    if not config.dry and (config.folder / CHECKSUMS).is_file():
        write_checksums(config.folder)
    return gate


def _write_graphs(
    exported: ExportedWeights, pictures: Sequence[Array], folder: Path
) -> tuple[GraphFile, ...]:
    """The 8-bit twin of each float graph, calibrated on letterboxed `pictures`."""
    from handos_model.backends.onnxruntime import OnnxGraph, session_options

    path = exported.path(None, 'fp32', 'grid_sample')
    detector = OnnxGraph(path, session_options(None), 'cpu', ())
    found = [
        {name: value.copy() for name, value in detector.infer({'image': picture}).items()}
        for picture in pictures
    ]
    written = []
    for hands in (None, *exported.hands('fp32', 'grid_sample')):
        model = onnx.load(exported.path(hands, 'fp32', 'grid_sample'))
        feeds = [{'image': picture} for picture in pictures]
        if hands is not None:
            feeds = list(_decoder_inputs(found, hands))
        small = quantised(model, observe(model, feeds, folder))
        if exported.storage == 'fp16':
            small = store_half(small)
        file = folder / graph_file_name(hands, 'int8', 'grid_sample')
        onnx.save(small, file)
        operators = Counter(node.op_type for node in small.graph.node)
        written.append(
            GraphFile(
                file.name,
                sha256(file),
                hands,
                'int8',
                'grid_sample',
                dict(sorted(operators.items())),
            )
        )
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


def _link_others(exported: ExportedWeights, rounded: ExportedWeights) -> None:
    """What an engine reads besides the new graphs, for the time of measuring."""
    for path in exported.folder.iterdir():
        if path.is_file() and not (rounded.folder / path.name).exists():
            (rounded.folder / path.name).symlink_to(path.resolve())
    manifest = rounded.folder / MANIFEST
    manifest.unlink()
    manifest.write_text(rounded.to_json())


def _measure(
    config: QuantiseConfig, rounded: ExportedWeights, held_out: _HeldOut, console: Console
) -> AccuracyGate:
    losses, scores, hands = {}, {}, 0
    backends = [name for name in BACKENDS if why_unavailable(name) is None]
    for backend in backends:
        summaries: dict[str, dict[str, Any]] = {}
        for precision in ('fp32', 'int8'):
            options = EngineOptions(precision=precision, max_hands=4)  # type: ignore[arg-type]
            pipeline = HandPipeline(rounded.folder, backend, PipelineConfig.paper(4), options)
            counted = Scores(same_topology=True)
            label = f'{backend}, {precision}'
            indices = track(range(len(held_out)), label, console=console, transient=True)
            evaluate(held_out, pipeline, counted, indices, keep_vertices=False)  # type: ignore[arg-type]
            summaries[precision] = counted.summary()
        for name in GATED:
            if name in summaries['fp32']:
                scores[f'{backend}.{name}'] = float(summaries['int8'].get(name, 0.0))
                losses[f'{backend}.{name}'] = float(
                    summaries['fp32'][name] - summaries['int8'].get(name, 0.0)
                )
        hands = int(summaries['fp32']['hands'])
    return AccuracyGate('int8', len(held_out), hands, config.limit, losses, scores)


def _rgb(sample: Sample) -> Array:
    return np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())


def _letterboxed(image: Array, exported: ExportedWeights) -> Array:
    """The network's input [1,H,W,3]."""
    letterbox = Letterbox((image.shape[0], image.shape[1]), exported.input_size_hw)
    buffer = letterbox.buffer()
    letterbox.apply(image, buffer)
    return buffer


def _photos(config: QuantiseConfig, exported: ExportedWeights) -> list[Array]:
    """Some pictures below `--photos`, evenly spread over all."""
    if config.photos is None:
        return []
    files = [p for p in sorted(config.photos.rglob('*')) if p.suffix.lower() in PHOTO_SUFFIXES]
    read = (cv2.imread(str(path)) for path in files[:: max(1, len(files) // config.calibration)])
    pictures = [
        _letterboxed(np.ascontiguousarray(image[..., ::-1]), exported)
        for image in read
        if image is not None
    ]
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
