"""The one sample type: what every reader returns and every augmentation keeps true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass
class HandLabels:
    """Labels of N hands; missing ones are zeros with their `has_` flag False.

    Pixels count from the centre of the first pixel. Metres are in the camera's optical frame
    (x right, y down, z forward), relative to the root joint (middle MCP, joint 9).
    """

    boxes_xyxy_px: Tensor  # [N,4] of what is visible
    amodal_boxes_xyxy_px: Tensor  # [N,4] of the whole hand, may leave the image
    is_left: Tensor  # [N] bool
    joints_px: Tensor  # [N,21,2]
    joint_visible: Tensor  # [N,21] bool, not hidden by anything
    vertices_m: Tensor  # [N,778,3]
    joints_m: Tensor  # [N,21,3]
    translation_m: Tensor  # [N,3] of the root joint
    vertex_visible: Tensor  # [N,778] bool
    has_side: Tensor  # [N] bool
    has_joint_px: Tensor  # [N,21] bool
    has_visibility: Tensor  # [N] bool
    has_joints_m: Tensor  # [N] bool
    has_vertices_m: Tensor  # [N] bool
    has_translation: Tensor  # [N] bool

    def __len__(self) -> int:
        return self.boxes_xyxy_px.shape[0]

    def __getitem__(self, index: Tensor | slice) -> HandLabels:
        return HandLabels(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> HandLabels:
        return HandLabels(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


_SHAPES: dict[str, tuple[int, ...]] = {
    'boxes_xyxy_px': (4,),
    'amodal_boxes_xyxy_px': (4,),
    'is_left': (),
    'joints_px': (21, 2),
    'joint_visible': (21,),
    'vertices_m': (778, 3),
    'joints_m': (21, 3),
    'translation_m': (3,),
    'vertex_visible': (778,),
    'has_side': (),
    'has_joint_px': (21,),
    'has_visibility': (),
    'has_joints_m': (),
    'has_vertices_m': (),
    'has_translation': (),
}


def empty_labels(num_hands: int) -> HandLabels:
    """Zeros with every flag False, for readers to fill in."""
    values = {}
    for name, shape in _SHAPES.items():
        flag = name.startswith('has_') or name in ('is_left', 'joint_visible', 'vertex_visible')
        dtype = torch.bool if flag else torch.float32
        values[name] = torch.zeros(num_hands, *shape, dtype=dtype)
    return HandLabels(**values)


def join_labels(parts: Sequence[HandLabels]) -> HandLabels:
    """The hands of all parts, one after the other."""
    return HandLabels(
        **{
            f.name: torch.cat([getattr(part, f.name) for part in parts])
            for f in fields(HandLabels)
        }
    )


@dataclass
class Sample:
    """One full image with its labelled hands."""

    image: Tensor  # [3,H,W] uint8 RGB
    camera_matrix_px: Tensor  # [3,3] float32
    hands: HandLabels
    name: str  # says where it came from, in errors
    all_hands_labelled: bool = True  # False: an unlabelled region is not a negative

    def replace(self, **changes: object) -> Sample:
        return replace(self, **changes)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise ValueError, naming the sample and the field, where it breaks the contract."""

        def fail(message: str) -> None:
            raise ValueError(f'{self.name}: {message}')

        if self.image.dtype != torch.uint8 or self.image.ndim != 3 or self.image.shape[0] != 3:
            fail(f'image must be uint8 [3,H,W], got {self.image.dtype} {tuple(self.image.shape)}')
        if self.camera_matrix_px.shape != (3, 3) or not self.camera_matrix_px.isfinite().all():
            fail('camera_matrix_px must be a finite [3,3]')
        for name, shape in _SHAPES.items():
            value = getattr(self.hands, name)
            if tuple(value.shape) != (len(self.hands), *shape):
                fail(f'{name} must be [{len(self.hands)}, {shape}], got {tuple(value.shape)}')
            if value.is_floating_point() and not value.isfinite().all():
                fail(f'{name} has non-finite values')
        boxes = self.hands.boxes_xyxy_px
        if len(boxes) and not (boxes[:, 2:] > boxes[:, :2]).all():
            fail(f'empty box in {boxes.tolist()}')


@dataclass
class Batch:
    """Images of one size, stacked, and the labels of all their hands, image after image."""

    images: Tensor  # [B,3,H,W] uint8
    camera_matrices_px: Tensor  # [B,3,3]
    hands: HandLabels  # N hands
    counts: list[int]  # hands of each image, N in all
    names: list[str]
    all_hands_labelled: Tensor  # [B] bool

    @property
    def image_index(self) -> Tensor:
        """The image of each hand [N] int64."""
        device = self.images.device
        counts = torch.tensor(self.counts, device=device)
        return torch.arange(len(counts), device=device).repeat_interleave(counts)

    def hands_of(self, image: int) -> HandLabels:
        """Labels of one image's hands, as views."""
        first = sum(self.counts[:image])
        return self.hands[first : first + self.counts[image]]

    def sample(self, image: int) -> Sample:
        """One image as it was before it was collated."""
        return Sample(
            self.images[image],
            self.camera_matrices_px[image],
            self.hands_of(image),
            self.names[image],
            bool(self.all_hands_labelled[image]),
        )

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            self.images.to(device, non_blocking=True),
            self.camera_matrices_px.to(device),
            self.hands.to(device),
            self.counts,
            self.names,
            self.all_hands_labelled.to(device),
        )


def collate(samples: list[Sample]) -> Batch:
    """Stack samples whose images share one size."""
    return Batch(
        torch.stack([sample.image for sample in samples]),
        torch.stack([sample.camera_matrix_px for sample in samples]),
        join_labels([sample.hands for sample in samples]),
        [len(sample.hands) for sample in samples],
        [sample.name for sample in samples],
        torch.tensor([sample.all_hands_labelled for sample in samples]),
    )
