"""What the decoder says of the chosen instances, mapped from the network to the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from handos_model.backends.base import Engine
from handos_model.preprocess import Mapping
from handos_model.types import FloatArray

OUTPUTS = ('joints_2d', 'visibility', 'vertices_m', 'joints_m', 'translation_m', 'right')


@dataclass
class Candidates:
    """N hands in pixels of the image and metres about the root; every number is finite."""

    scores: FloatArray  # [N]
    boxes_px: FloatArray  # [N,4] xyxy
    joints_px: FloatArray  # [N,21,2]
    visibility: FloatArray  # [N,21]
    vertices_m: FloatArray  # [N,778,3]
    joints_m: FloatArray  # [N,21,3]
    right: FloatArray  # [N] probability of a right hand
    network_px: FloatArray  # [N,21,2] joints as the network's own translation and camera put them

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        """One after the other; at least one part."""
        fields = [list(vars(part).values()) for part in parts]
        return cls(*(np.concatenate(values) for values in zip(*fields, strict=True)))


class CandidateDecoder:
    """Runs an engine's decoders; the inputs' buffers are made once."""

    def __init__(self) -> None:
        self.not_finite = 0  # instances left out since it was last set to 0
        self._queries: dict[int, FloatArray] = {}
        self._boxes: dict[int, FloatArray] = {}

    def warm_up(self, engine: Engine, image: npt.NDArray[np.uint8]) -> None:
        """Run every graph on the network's input `image` [1,H,W,3]."""
        found = engine.detector.infer({'image': image})
        for hands, decoder in engine.decoders.items():
            queries, boxes = self._inputs(hands, found['queries'].shape[-1])
            boxes[:] = 0.5
            decoder.infer(
                {'features': found['features'], 'queries': queries, 'boxes_cxcywh': boxes}
            )

    def __call__(
        self,
        engine: Engine,
        mapping: Mapping,
        found: dict[str, npt.NDArray[np.float32]],
        chosen: npt.NDArray[np.int64],
    ) -> Candidates | None:
        """The instances `chosen` among those that `engine`'s detector has `found`.

        The smallest decoder runs that holds all of them, or the largest several times. What is
        not finite is left out. None where nothing was chosen.
        """
        if len(chosen) == 0:
            return None
        sizes = sorted(engine.decoders)
        parts = []
        for start in range(0, len(chosen), sizes[-1]):
            rows = chosen[start : start + sizes[-1]]
            hands = next(size for size in sizes if size >= len(rows))
            queries, boxes = self._inputs(hands, found['queries'].shape[-1])
            queries[: len(rows)] = found['queries'][0, rows]
            boxes[: len(rows)] = found['boxes_cxcywh'][0, rows]
            boxes[len(rows) :] = 0.5  # padding: any sound box
            outputs = engine.decoders[hands].infer(
                {'features': found['features'], 'queries': queries, 'boxes_cxcywh': boxes}
            )
            parts.append([outputs[name][: len(rows)].copy() for name in OUTPUTS])
        joints_2d, visibility, vertices_m, joints_m, translation_m, right = (
            np.concatenate(values) for values in zip(*parts, strict=True)
        )
        scores, boxes = found['scores'][0, chosen], found['boxes_cxcywh'][0, chosen]
        joints_px = mapping.to_image(joints_2d)
        # A sum is finite only if all its terms are. From here on every number of a hand is.
        total = scores + boxes.sum(1) + visibility.sum(1) + translation_m.sum(1) + right
        for values in (joints_px, joints_m, vertices_m):
            total = total + values.sum((1, 2))
        keep = np.isfinite(total)
        self.not_finite += int((~keep).sum())
        return Candidates(
            scores=scores[keep],
            boxes_px=mapping.boxes_to_image(boxes[keep]),
            joints_px=joints_px[keep],
            visibility=visibility[keep],
            vertices_m=vertices_m[keep],
            joints_m=joints_m[keep],
            right=right[keep],
            network_px=mapping.project(joints_m[keep] + translation_m[keep, None]),
        )

    def _inputs(self, hands: int, width: int) -> tuple[FloatArray, FloatArray]:
        if hands not in self._queries:
            self._queries[hands] = np.zeros((hands, width), np.float32)
            self._boxes[hands] = np.full((hands, 4), 0.5, np.float32)
        return self._queries[hands], self._boxes[hands]
