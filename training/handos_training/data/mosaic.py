"""Several images as one: smaller hands, more of them, and backgrounds that no camera saw.

Most photographs show one near hand in the middle, and a detector that learns from them alone
finds one near hand in the middle. Two or four images side by side teach hands of half the size,
several at once, at any place, and how little the frame around a hand says. What depends on where
the camera looked (metres, meshes) is no longer asked of hands that had it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from handos_model.preprocess import PADDING_VALUE
from handos_training.data.sample import HandLabels, Sample, join_labels
from handos_training.data.transform import warp

LAYOUTS = ((1, 2), (2, 1), (2, 2))  # rows and columns


@dataclass(frozen=True)
class MosaicConfig:
    """How often images are joined, and how they share the canvas."""

    share: float = 0.0  # of the samples, in [0,1]
    layout_shares: tuple[float, float, float] = (0.4, 0.15, 0.45)  # of LAYOUTS
    cut: tuple[float, float] = (0.35, 0.65)  # where the canvas is parted, in parts of it
    zoom: float = 1.1  # an image is drawn between fitting its tile and covering it so much over

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f'share is a probability, got {self.share}')
        if not np.isclose(sum(self.layout_shares), 1):
            raise ValueError(f'layout_shares must sum to 1, got {self.layout_shares}')


class Mosaic:
    """Joins a share of the samples with others on a canvas."""

    def __init__(self, canvas_hw: tuple[int, int], config: MosaicConfig) -> None:
        self.canvas_hw = canvas_hw
        self.config = config

    def __call__(
        self,
        sample: Sample,
        another: Callable[[np.random.Generator], Sample],
        rng: np.random.Generator,
    ) -> Sample:
        """`sample` as it is, or in the first tile beside one or three that `another` gives."""
        if rng.random() >= self.config.share:
            return sample
        layout = LAYOUTS[int(rng.choice(len(LAYOUTS), p=self.config.layout_shares))]
        samples = [sample, *(another(rng) for _ in range(layout[0] * layout[1] - 1))]
        return joined(samples, layout, self.canvas_hw, self.config, rng)


def joined(
    samples: Sequence[Sample],
    layout: tuple[int, int],
    canvas_hw: tuple[int, int],
    config: MosaicConfig,
    rng: np.random.Generator,
) -> Sample:
    """One image of `canvas_hw` with a sample in each of `layout` rows x columns, row after row.

    Hands are cut where their tile ends; joints beyond it have no label, as another image is there.
    """
    rows, columns = layout
    ys = _cuts(canvas_hw[0], rows, config, rng)
    xs = _cuts(canvas_hw[1], columns, config, rng)
    image = torch.full((3, *canvas_hw), PADDING_VALUE, dtype=torch.uint8)
    hands: list[HandLabels] = []
    complete = True
    corners = [(row, column) for row in range(rows) for column in range(columns)]
    for sample, (row, column) in zip(samples, corners, strict=True):
        (y0, y1), (x0, x1) = ys[row : row + 2], xs[column : column + 2]
        tile_hw = (y1 - y0, x1 - x0)
        tile = warp(sample, _placed(sample.image.shape[1:], tile_hw, config, rng), tile_hw)
        image[:, y0:y1, x0:x1] = tile.image
        hands.append(_shifted(_image_labels(tile.hands, tile_hw), (x0, y0)))
        complete &= tile.all_hands_labelled
    return Sample(
        image,
        samples[0].camera_matrix_px,  # of no meaning: nothing metric is left that it would place
        join_labels(hands),
        ' + '.join(sample.name for sample in samples),
        complete,
    )


def _image_labels(hands: HandLabels, tile_hw: tuple[int, int]) -> HandLabels:
    """Labels that hold wherever the tile stands. A hand known in metres turns with its place in
    the view; one whose joints in space are a guess from the image keeps them."""
    limit = torch.tensor([tile_hw[1], tile_hw[0]]) - 0.5
    inside = ((hands.joints_px >= -0.5) & (hands.joints_px <= limit)).all(-1)
    nothing = torch.zeros_like(hands.has_translation)
    return replace(
        hands,
        has_joint_px=hands.has_joint_px & inside,
        has_joints_m=hands.has_joints_m & ~hands.has_translation,
        has_vertices_m=nothing,
        has_translation=nothing,
    )


def _shifted(hands: HandLabels, offset_px: tuple[int, int]) -> HandLabels:
    """Labels of the image alone, where the tile stands."""
    offset = torch.tensor(offset_px, dtype=torch.float32)
    known = hands.has_joint_px[..., None]
    return replace(
        hands,
        joints_px=torch.where(known, hands.joints_px + offset, torch.zeros(())),
        boxes_xyxy_px=hands.boxes_xyxy_px + offset.repeat(2),
        amodal_boxes_xyxy_px=hands.amodal_boxes_xyxy_px + offset.repeat(2),
    )


def _placed(
    image_hw: Sequence[int],
    tile_hw: tuple[int, int],
    config: MosaicConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """The map [3,3] of an image's pixels into its tile, at a random size and place."""
    size, tile = np.array([image_hw[1], image_hw[0]]), np.array([tile_hw[1], tile_hw[0]])
    fit, cover = (tile / size).min(), (tile / size).max() * config.zoom
    scale = np.exp(rng.uniform(np.log(fit), np.log(cover)))
    offset = rng.uniform(size=2) * (tile - scale * size) + (scale - 1) / 2
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]], [0, 0, 1.0]])


def _cuts(length: int, parts: int, config: MosaicConfig, rng: np.random.Generator) -> list[int]:
    """The borders of one or two tiles along a side of the canvas, in pixels."""
    inner = [round(length * float(rng.uniform(*config.cut)))] if parts == 2 else []
    return [0, *inner, length]
