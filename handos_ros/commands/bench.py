"""`handos bench`: how long a frame takes, part by part."""

from __future__ import annotations

import json as json_format
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from handos_model.backends.base import EngineOptions
from handos_model.backends.parity import made_up_images
from handos_model.environment import describe_machine
from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.pipeline import HandPipeline, PipelineConfig, StageTimes
from handos_model.tracking.tracker import Tracker
from handos_model.types import Camera
from handos_ros.commands.options import BackendOption, ManoOption, WeightsOption


def bench(
    weights: WeightsOption = 'nano',
    mano: ManoOption = None,
    backend: BackendOption = 'auto',
    hands: Annotated[int, typer.Option(help='Hands a frame, found there or not.')] = 1,
    size: Annotated[str, typer.Option(help='Size of the camera image.')] = '640x480',
    frames: Annotated[int, typer.Option(help='Frames to measure.')] = 100,
    precision: Annotated[str, typer.Option(help='auto, fp32, fp16, bf16 or int8.')] = 'auto',
    threads: Annotated[int, typer.Option(help='Of a CPU backend; 0 = the usable cores.')] = 0,
    image: Annotated[Path | None, typer.Option(help='A picture instead of a made-up one.')] = None,
    json: Annotated[bool, typer.Option('--json', help='Print JSON.')] = False,
) -> None:
    """Measure preprocessing, detector, decoder and the rest (p50, p95, p99, milliseconds)."""
    if frames < 1 or hands < 1:
        raise UserError('--frames and --hands must be at least 1')
    options = EngineOptions(precision=precision, max_hands=hands, threads=threads or None)  # type: ignore[arg-type]
    # Exactly `hands` instances are decoded in every frame, whatever their scores and overlaps.
    everything = PipelineConfig(
        score_threshold=0.0,
        nms_threshold=1.0,
        duplicate_similarity=None,
        closer_below_px=None,
        max_hands=hands,
    )
    pipeline = HandPipeline(weights, backend, everything, options, HandModel.of(mano))
    tracker = Tracker()
    picture = _picture(image, size)
    height, width = picture.shape[:2]
    camera = Camera.uncalibrated(width, height)
    for _ in range(5):
        pipeline(picture, camera)
    times = []
    for frame in range(frames):
        found = pipeline(picture, camera)
        began_s = time.perf_counter()
        tracker.update(found, frame / 30)
        times.append(replace(pipeline.times, track=time.perf_counter() - began_s))
    result = {
        'weights': weights,
        'backend': pipeline.backend,
        'reason': pipeline.backend_reason,
        'hands': hands,
        'image_size': [width, height],
        'network_size': list(pipeline.network_hw[::-1]),
        'frames': frames,
        'milliseconds': summarise(times),
        **describe_machine(),
    }
    print(json_format.dumps(result, indent=2) if json else _table(result))


def summarise(times: list[StageTimes]) -> dict[str, dict[str, float]]:
    """p50, p95 and p99 of each stage, of all but the network, and of the whole frame."""
    rows = [asdict(t) | {'not_network': t.other, 'total': t.total} for t in times]
    return {
        stage: {
            f'p{percent}': round(
                float(np.percentile([row[stage] for row in rows], percent)) * 1e3, 3
            )
            for percent in (50, 95, 99)
        }
        for stage in rows[0]
    }


def _picture(image: Path | None, size: str) -> Any:
    if image is not None:
        from handos_ros.commands.image import read_picture

        return read_picture(image)
    try:
        width, height = (int(word) for word in size.split('x'))
        return made_up_images((height, width), 1)[0]
    except ValueError:
        raise UserError(f'--size {size!r}: give WIDTHxHEIGHT, such as 640x480') from None


def _table(result: dict[str, Any]) -> str:
    size = 'x'.join(map(str, result['image_size']))
    lines = [
        f'{result["backend"]}, {result["hands"]} hand(s), {size}',
        f'{result["processor"]}, {result["cores"]} cores',
        f'{"":12} {"p50":>8} {"p95":>8} {"p99":>8}  ms',
    ]
    for stage, values in result['milliseconds'].items():
        lines.append(f'{stage:12} ' + ' '.join(f'{value:8.2f}' for value in values.values()))
    return '\n'.join(lines)
