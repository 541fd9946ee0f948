"""`handos export`: weights as ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.types import ImageArray
from handos_model.weights.exported import GraphSampling, Precision, Storage
from handos_ros.commands.options import ManoOption


def export(
    weights: Annotated[str, typer.Argument(help='Shipped name, folder or hub id.')],
    out: Annotated[
        Path | None, typer.Option(help='Folder to write to; it may be that of the weights.')
    ] = None,
    precision: Annotated[str, typer.Option(help='fp32, fp16, or both as fp32,fp16.')] = 'fp32',
    hands: Annotated[str, typer.Option(help='Hands a decoder takes at once.')] = '1,2,4',
    sampling: Annotated[
        str, typer.Option(help='grid_sample, gather, plugin (TensorRT only), or several.')
    ] = 'grid_sample',
    storage: Annotated[
        str, typer.Option(help='fp16 halves the files: rounded weights, fp32 arithmetic.')
    ] = 'fp32',
    images: Annotated[
        list[Path] | None, typer.Option(help='Real pictures to compare the graphs on.')
    ] = None,
    engine: Annotated[
        bool,
        typer.Option(
            '--engine', help="Build this machine's TensorRT engines; without --out only these."
        ),
    ] = False,
    mano: ManoOption = None,
) -> None:
    """Write ONNX graphs, each compared with torch first; nothing is written where one differs."""
    from handos_model.weights.store import WEIGHTS, find_weights, sha256

    most_hands = max(_numbers(hands))
    if out is None:
        if not engine:
            raise UserError('say where to write (--out DIR), or give --engine to build engines')
        _build_engines(find_weights(weights), most_hands, images or [])
        return
    try:
        from handos_model.export import exporter
        from handos_model.network.handos import HandOS
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed: pip install 'handos-ros[export]'"
        ) from error

    folder = find_weights(weights)
    network = HandOS.from_pretrained(folder, HandModel.of(mano))
    exported = exporter.export(
        network,
        out,
        exporter.ExportConfig(
            precisions=cast(tuple[Precision, ...], tuple(precision.split(','))),
            samplings=cast(tuple[GraphSampling, ...], tuple(sampling.split(','))),
            hands=_numbers(hands),
            storage=cast(Storage, storage),
        ),
        licence=_licence(folder),
        source_sha256=sha256(folder / WEIGHTS),
        images=[_letterboxed(file, network.config.input_size_hw) for file in images or []],
        report=print,
    )
    print(f'{len(exported.graphs)} graphs of {exported.name} in {out}')
    if engine:
        _build_engines(out, most_hands, images or [])


def _build_engines(folder: Path, most_hands: int, images: list[Path]) -> None:
    """Engines for this machine's GPU, of graphs that are exported; torch is not needed."""
    from handos_model.backends.base import EngineOptions
    from handos_model.backends.tensorrt.backend import prepare
    from handos_model.weights.exported import ExportedWeights

    size_hw = ExportedWeights.load(folder).input_size_hw
    frames = [_letterboxed(file, size_hw) for file in images]
    ready = prepare(folder, EngineOptions(max_hands=most_hands), frames, print)
    print(f'ready: {ready.name}')


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(','))
    except ValueError:
        raise UserError(f'--hands {text!r}: give numbers such as 1,2,4') from None


def _licence(folder: Path) -> str:
    """`license:` of the model card's header."""
    card = folder / 'README.md'
    lines = card.read_text().splitlines() if card.is_file() else []
    for line in lines:
        key, _, value = line.partition(':')
        if key.strip() == 'license':
            return value.strip()
    return 'unknown'


def _letterboxed(file: Path, network_hw: tuple[int, int]) -> ImageArray:
    from handos_model.preprocess import Letterbox
    from handos_ros.commands.image import read_picture

    picture = read_picture(file)
    letterbox = Letterbox((picture.shape[0], picture.shape[1]), network_hw)
    buffer = letterbox.buffer()
    letterbox.apply(picture, buffer)
    return np.asarray(buffer[0])
