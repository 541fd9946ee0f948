"""FLOPs, parameters and peak memory by module, for each configuration and number of hands.

    python benchmarks/flops.py [nano base ...] [--size 480x640] [--hands 1 2 4] [--no-memory]

Prints a table on stderr and JSON on stdout. One FLOP is one multiplication or addition (2 x MAC)
of a matrix product, convolution or attention, as `torch.utils.flop_counter` counts them;
sampling, normalisation and element-wise work are left out. All weights are random. The paper
(section XII) gives 301 + 108 H GFLOP for its detector and decoder with H hands.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from handos_model.config import DecoderConfig, DetectorConfig, HandOSConfig, SideTuningConfig
from handos_model.environment import describe_machine
from handos_model.hand.model import HandModel
from handos_model.network.detectors.dfine import initialise_detector
from handos_model.network.handos import Features, HandOS

PAPER_DETECTOR_GFLOP, PAPER_HAND_GFLOP = 301, 108

# The hub detectors' shapes, so that nothing is downloaded.
SEEDED_DETECTORS = {
    'nano': HandOSConfig.nano().detector,
    'base': DetectorConfig(
        'rt_detr_v2',
        model={
            'backbone_config': {
                'model_type': 'rt_detr_resnet',
                'depths': [2, 2, 2, 2],
                'hidden_sizes': [64, 128, 256, 512],
                'layer_type': 'basic',
                'out_features': ['stage2', 'stage3', 'stage4'],
            },
            'encoder_in_channels': [128, 256, 512],
            'decoder_layers': 3,
            'hidden_expansion': 0.5,
        },
    ),
    'paper': DetectorConfig('grounding_dino'),
}

# The paper's detector and input, with a cheaper side tuning and decoder.
REDUCED = {
    'side_tuning': SideTuningConfig(combine='add', hidden=128),
    'decoder': DecoderConfig(ffn_dim=1024, vertex_tokens=195),
}
CONFIGS: dict[str, Callable[[], HandOSConfig]] = {
    'nano': HandOSConfig.nano,
    'base': HandOSConfig.base,
    'paper': HandOSConfig.paper,
    'paper-reduced': lambda: HandOSConfig.paper(name='paper-reduced', **REDUCED),
}


def seeded_network(config: HandOSConfig) -> HandOS:
    """The network with random weights of a healthy scale."""
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    detector = SEEDED_DETECTORS[config.name.split('-')[0]]
    network = HandOS.from_config(replace(config, detector=detector), HandModel.embedded())
    initialise_detector(network.detector, seed=0)
    return network.requires_grad_(False).eval()


def count_flops(run: Callable[[], Any], depth: int) -> dict[str, float]:
    """GFLOP of `run` by submodule of what it calls, equal layers added up; '' is the whole."""
    with FlopCounterMode(depth=8, display=False) as counter:
        run()
    found = counter.get_flop_counts()
    counts: dict[str, float] = {'': counter.get_total_flops()}
    for name, operators in found.items():
        parent, _, last = name.rpartition('.')
        if last.isdigit() and parent in found:  # a step of a Sequential, counted in its parent
            continue
        parts = [part for part in name.split('.')[1:] if not part.isdigit()]
        inside = '.'.join(parts).removeprefix('model.model.').split('.')
        if parts and 'model' not in inside[0] and len(inside) <= depth:
            key = '.'.join(inside)
            counts[key] = counts.get(key, 0) + sum(operators.values())
    return {key: round(flop / 1e9, 3) for key, flop in counts.items() if flop >= 5e5 or not key}


def decode(network: HandOS, features: Features, hands: int) -> list[Any]:
    """Reconstruct the first `hands` instances of the first image."""
    detected = features.detector
    image_index = torch.zeros(hands, dtype=torch.long)
    queries, boxes = detected.instance_queries[0, :hands], detected.boxes_cxcywh[0, :hands]
    return network.decode(features, image_index, queries, boxes)


def measure(config: HandOSConfig, hands: list[int]) -> dict[str, Any]:
    """All counts of one configuration at its input size."""
    network = seeded_network(config)
    images = torch.randint(0, 256, (1, 3, *config.input_size_hw), dtype=torch.uint8)
    detector = count_flops(lambda: network.detector(images.float() / 255), depth=3)
    features = network.encode(images)
    side = count_flops(
        lambda: network.side_tuning(features.detector, images.float() / 255), depth=1
    )
    decoder = {H: count_flops(lambda H=H: decode(network, features, H), depth=2) for H in hands}
    per_image = detector[''] + side['']
    return {
        'input_size_hw': list(config.input_size_hw),
        'image_tokens': int(features.values_source.shape[1]),
        'million_parameters': {
            name: round(sum(p.numel() for p in part.parameters()) / 1e6, 3)
            for name, part in network.named_children()
        },
        'detector_gflop': detector[''],
        'side_tuning_gflop': side[''],
        'decoder_gflop': {str(H): counts[''] for H, counts in decoder.items()},
        'total_gflop': {str(H): round(per_image + c[''], 3) for H, c in decoder.items()},
        'paper_gflop': {str(H): PAPER_DETECTOR_GFLOP + PAPER_HAND_GFLOP * H for H in hands},
        'detector_by_module_gflop': detector,
        'decoder_by_module_gflop': {str(H): counts for H, counts in decoder.items()},
    }


def peak_memory_mb(config: HandOSConfig, hands: int) -> float:
    """Peak resident memory of a fresh process that builds the network and runs one frame, MB."""
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_run_once, (config.to_json(), hands))


def _run_once(config_json: str, hands: int) -> float:
    config = HandOSConfig.from_json(config_json)
    network = seeded_network(config)
    with torch.inference_mode():
        images: Tensor = torch.zeros(1, 3, *config.input_size_hw, dtype=torch.uint8)
        decode(network, network.encode(images), hands)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(results: dict[str, Any]) -> str:
    """The figures that matter, one row a configuration and number of hands."""
    head = ('config', 'input', 'H', 'detector', 'side', 'decoder', 'total', 'paper')
    lines = [''.join(f'{name:>15}' for name in head) + '   (GFLOP)']
    for name, r in results.items():
        height, width = r['input_size_hw']
        for H, decoder in r['decoder_gflop'].items():
            row = (name, f'{height}x{width}', H, r['detector_gflop'], r['side_tuning_gflop'],
                   decoder, r['total_gflop'][H], r['paper_gflop'][H])  # fmt: skip
            lines.append(''.join(f'{value:>15}' for value in row))
        if 'peak_memory_mb' in r:
            lines.append(f'{name:>15}  peak memory {r["peak_memory_mb"]:.0f} MB')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='*', default=list(CONFIGS))
    parser.add_argument('--size', help='input height x width instead of the configured')
    parser.add_argument('--hands', type=int, nargs='+', default=[1, 2, 4])
    parser.add_argument('--no-memory', action='store_true', help='skip the peak memory runs')
    arguments = parser.parse_args()
    results = {}
    for name in arguments.configs:
        config = CONFIGS[name]()
        if arguments.size:
            height, width = map(int, arguments.size.split('x'))
            config = replace(config, input_size_hw=(height, width))
        results[name] = measure(config, arguments.hands)
        if not arguments.no_memory:
            results[name]['peak_memory_mb'] = round(peak_memory_mb(config, max(arguments.hands)))
    print(table(results), file=sys.stderr)
    print(json.dumps({'environment': describe_machine(), 'results': results}, indent=2))


if __name__ == '__main__':
    main()
