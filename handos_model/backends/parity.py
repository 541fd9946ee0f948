"""Does a graph compute what torch computes? Compared as sets, and in pixels and millimetres.

Rows of the detector may come in another order (a TopK with near-ties reorders them), so its
instances are matched by box before they are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from handos_model.backends.base import Array, Engine
from handos_model.selection import select_instances
from handos_model.tracking.assignment import assign
from handos_model.types import FloatArray

# What may differ from torch FP32: largest error of any value of the frames compared.
LIMITS: dict[str, dict[str, float]] = {
    'fp32': {
        'joints_px': 0.5,
        'joints_mm': 0.5,
        'vertices_mm': 0.5,
        'translation_relative': 0.002,
        'visibility': 0.01,
        'right': 0.01,
        'boxes_px': 0.5,
        'scores': 0.01,
        'features_relative': 0.005,
        'unmatched': 0.02,
    },
}
LIMITS['fp16'] = LIMITS['bf16'] = {
    'joints_px': 1.5,
    'joints_mm': 2.0,
    'vertices_mm': 2.0,
    'translation_relative': 0.02,
    'visibility': 0.05,
    'right': 0.05,
    'boxes_px': 1.5,
    'scores': 0.05,
    'features_relative': 0.05,
    'unmatched': 0.3,  # background that a TopK with near-ties swaps; hands may not be among it
}
_SAME_BOX_PX = 4.0
# Instances with this score may not be missing on either side, unless most have it: then the
# weights are untrained, and their scores say nothing.
_CERTAIN = 0.05


def decoder_parity(
    reference: Mapping[str, Array], found: Mapping[str, Array], input_size_hw: tuple[int, int]
) -> dict[str, float]:
    """Largest differences of a decoder's outputs, from the same inputs."""
    size = np.array(input_size_hw[::-1])
    depth = np.linalg.norm(reference['translation_m'], axis=-1, keepdims=True)
    return {
        'joints_px': _largest((reference['joints_2d'] - found['joints_2d']) * size),
        'joints_mm': 1e3 * _largest(reference['joints_m'] - found['joints_m']),
        'vertices_mm': 1e3 * _largest(reference['vertices_m'] - found['vertices_m']),
        'translation_relative': _largest(
            (reference['translation_m'] - found['translation_m']) / np.maximum(depth, 0.1)
        ),
        'visibility': _largest(reference['visibility'] - found['visibility']),
        'right': _largest(reference['right'] - found['right']),
    }


def detector_parity(
    reference: Mapping[str, Array], found: Mapping[str, Array], input_size_hw: tuple[int, int]
) -> dict[str, float]:
    """Largest differences of a detector's outputs, over instances matched by box and query.

    `unmatched` is the fraction of instances without a partner; it is 1 where one of them has a
    score that counts.
    """
    size = np.tile(np.array(input_size_hw[::-1]), 2)
    pairs = match_instances(reference, found)
    differences = np.abs(
        reference['boxes_cxcywh'][0][pairs[0]] - found['boxes_cxcywh'][0][pairs[1]]
    )
    same = (differences * size).max(-1, initial=0.0) < _SAME_BOX_PX
    total = reference['scores'].shape[1]
    lost = [
        np.delete(side['scores'][0], rows[same])
        for side, rows in zip((reference, found), pairs, strict=True)
    ]
    certain = max(float(scores.max(initial=0.0)) for scores in lost) >= _CERTAIN
    certain = certain and float((reference['scores'] >= _CERTAIN).mean()) < 0.5
    scores = reference['scores'][0][pairs[0]] - found['scores'][0][pairs[1]]
    features = reference['features']
    return {
        'boxes_px': _largest((differences * size)[same]),
        'scores': _largest(scores[same]),
        'features_relative': _largest(features - found['features']) / (_largest(features) + 1e-12),
        'unmatched': 1.0 if certain else float((~same).sum() / total),
    }


def match_instances(
    reference: Mapping[str, Array], found: Mapping[str, Array]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of both sides, paired by least distance of boxes, scores and queries."""
    described = []
    for side in (reference, found):
        queries = side['queries'][0]
        described.append(
            np.concatenate(
                [
                    side['boxes_cxcywh'][0],
                    side['scores'][0][:, None],
                    0.01 * queries / (reference['queries'][0].std() + 1e-12),
                ],
                axis=-1,
            )
        )
    squares = [(rows**2).sum(-1) for rows in described]
    cost = squares[0][:, None] + squares[1][None] - 2 * described[0] @ described[1].T
    rows, columns = assign(np.nan_to_num(cost, nan=1e9))
    return np.asarray(rows), np.asarray(columns)


def beyond_limits(errors: Mapping[str, float], precision: str) -> list[str]:
    """What is outside `LIMITS`, in words; NaN counts as outside."""
    limits = LIMITS[precision]
    return [
        f'{name} {value:.4g} (limit {limits[name]:g})'
        for name, value in errors.items()
        if not value <= limits[name]
    ]


def engine_parity(
    reference: Engine, found: Engine, images: Sequence[Array], input_size_hw: tuple[int, int]
) -> dict[str, float]:
    """The largest errors over uint8 images [H,W,3] and all decoders that both engines have.

    Where both have graphs of a window, these count as well. `input_size_hw` is that of the whole
    input.
    """
    worst: dict[str, float] = {}
    if reference.window is not None and found.window is not None:
        place, size_hw = reference.window.place, reference.window.size_hw
        seen = [place.cut(image, size_hw) for image in images]
        worst = engine_parity(reference.window.graphs, found.window.graphs, seen, input_size_hw)
    for image in images:
        inputs = {'image': np.ascontiguousarray(image[None])}
        truth, other = (_to_host(side.detector.infer(inputs)) for side in (reference, found))
        errors = [detector_parity(truth, other, input_size_hw)]
        for hands in sorted(set(reference.decoders) & set(found.decoders)):
            scores, boxes = truth['scores'][0], truth['boxes_cxcywh'][0]
            rows = np.resize(select_instances(scores, boxes, 0.0, max_hands=hands), hands)
            decoder_inputs = {
                'features': truth['features'],
                'queries': truth['queries'][0, rows],
                'boxes_cxcywh': boxes[rows],
            }
            true_hands, other_hands = (
                _to_host(side.decoders[hands].infer(decoder_inputs)) for side in (reference, found)
            )
            errors.append(decoder_parity(true_hands, other_hands, input_size_hw))
        for name, value in (item for found_errors in errors for item in found_errors.items()):
            worst[name] = max(value, worst.get(name, 0.0))
    return worst


def _to_host(outputs: Mapping[str, Any]) -> dict[str, Array]:
    """Copies in numpy of arrays, torch tensors and ONNX Runtime values."""
    host = {}
    for name, value in outputs.items():
        if hasattr(value, 'cpu'):
            value = value.cpu()
        host[name] = np.array(value.numpy() if hasattr(value, 'numpy') else value)
    return host


def made_up_images(size_hw: tuple[int, int], count: int = 2) -> list[Array]:
    """Smooth random pictures, uint8 [H,W,3]: enough to make every part of a network answer."""
    random = np.random.default_rng(0)
    height, width = size_hw
    pictures = []
    for index in range(count):
        picture = np.zeros((height, width, 3))
        for cells in (3, 12, 48):
            noise = random.normal(0, 60 / (1 + index), (cells, cells, 3))
            picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        pictures.append(np.clip(picture + 120, 0, 255).astype(np.uint8))
    return pictures


def _largest(values: FloatArray) -> float:
    return float(np.abs(values).max(initial=0.0))
