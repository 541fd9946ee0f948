"""Milliseconds a frame on a GPU, by torch with CUDA graphs: `nano`, `base` and `paper` as JSON.

    python benchmarks/gpu.py [nano base paper] [--hands 1 2 4]

Detector and decoder as the node runs them (half precision, one image, the pixels copied to the
GPU and the hands back in every frame), without resizing and tracking. `nano` has its shipped
weights and is compared with the CPU in single precision; the others are random.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from flops import CONFIGS, seeded_network

from handos_model.backends.base import Array, Engine, EngineOptions, RequestedPrecision
from handos_model.backends.parity import decoder_parity, made_up_images
from handos_model.backends.torch import engine_of_network
from handos_model.environment import describe_machine
from handos_model.network.handos import HandOS

ROOT = Path(__file__).parent.parent
NANO = ROOT / 'weights' / 'nano'
CLIP = ROOT / 'handos_ros' / 'assets' / 'human_hand.mp4'
PRECISIONS: tuple[RequestedPrecision, ...] = ('fp32', 'fp16')
FRAMES, WARM_UP = 300, 20


def run(engine: Engine, image: Any, hands: int) -> dict[str, Any]:
    """One frame: the detector, and the decoder for its surest instances."""
    seen = engine.detector.infer({'image': image[None]})
    surest = np.argsort(-seen['scores'][0])[:hands]
    chosen = {
        'queries': seen['queries'][0, surest],
        'boxes_cxcywh': seen['boxes_cxcywh'][0, surest],
    }
    return engine.decoders[hands].infer({'features': seen['features'], **chosen})


def frames_of_clip(size_hw: tuple[int, int]) -> list[Array]:
    """A few frames of the demo's clip, as large as the network's input."""
    clip = cv2.VideoCapture(str(CLIP))
    frames = [clip.read()[1] for _ in range(100)][::25]
    return [cv2.resize(frame[..., ::-1], size_hw[::-1]) for frame in frames]


def beside_cpu(
    network: HandOS, options: EngineOptions, images: list[Array]
) -> Callable[[Engine], Any]:
    """Largest differences of an engine's hand from the CPU's in single precision."""
    on_cpu = engine_of_network(network, replace(options, precision='fp32'))
    expected = [dict_of_copies(run(on_cpu, image, 1)) for image in images]

    def compare(engine: Engine) -> dict[str, float]:
        found = [
            decoder_parity(reference, run(engine, image, 1), network.config.input_size_hw)
            for reference, image in zip(expected, images, strict=True)
        ]
        return {name: round(max(one[name] for one in found), 4) for name in found[0]}

    return compare


def measure(name: str, hands: list[int], weights: Path) -> dict[str, Any]:
    """p50 and p99 of one configuration for each number of hands."""
    has_weights = name == 'nano'
    network = (
        HandOS.from_pretrained(weights).eval() if has_weights else seeded_network(CONFIGS[name]())
    )
    size_hw = network.config.input_size_hw
    images = frames_of_clip(size_hw) if has_weights else made_up_images(size_hw, 4)
    options = EngineOptions(max_hands=max(hands), window=False)
    compare = beside_cpu(network, options, images) if has_weights else None
    result: dict[str, Any] = {'input_size_hw': list(size_hw)}
    network = network.to('cuda')
    for precision in PRECISIONS:
        engine = engine_of_network(network, replace(options, precision=precision))
        result[precision] = {f'{count} hands': timed(engine, images, count) for count in hands}
        if compare is not None:
            result[precision]['beside_cpu'] = compare(engine)
    return result


def timed(engine: Engine, images: list[Array], hands: int) -> dict[str, float]:
    """Milliseconds of one frame, from pixels on the host to hands on the host."""
    times = []
    for frame in range(WARM_UP + FRAMES):
        began = time.perf_counter()
        run(engine, images[frame % len(images)], hands)
        times.append(1e3 * (time.perf_counter() - began))
    p50, p99 = np.percentile(times[WARM_UP:], [50, 99])
    return {'p50_ms': round(p50, 3), 'p99_ms': round(p99, 3)}


def dict_of_copies(outputs: dict[str, Array]) -> dict[str, Array]:
    """Outputs that the graph's next call does not overwrite."""
    return {name: value.copy() for name, value in outputs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='*', default=['nano', 'base', 'paper'])
    parser.add_argument('--hands', type=int, nargs='+', default=[1, 2, 4])
    parser.add_argument('--weights', type=Path, default=NANO, help='of nano')
    options = parser.parse_args()
    results = {name: measure(name, options.hands, options.weights) for name in options.configs}
    print(json.dumps({'environment': describe_machine(), 'frames': FRAMES} | results, indent=1))


if __name__ == '__main__':
    main()
