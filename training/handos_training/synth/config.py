"""What the generated images contain, as one validated dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SynthConfig:
    """Mixture of the scenes; every fraction is a probability in [0, 1].

    `person_fraction` of the images show whole people whose hands come up; the rest show one to
    four arms that leave the frame. Angles are degrees, sizes are parts of the image side.
    """

    height: int = 480
    width: int = 640
    person_fraction: float = 0.45
    second_person_fraction: float = 0.15  # of the images with a person
    hand_counts: tuple[float, float, float, float] = (0.5, 0.34, 0.1, 0.06)  # 1 to 4 arms
    upright_fraction: float = 0.45  # of the arms: fingers roughly up, as before a webcam
    egocentric_fraction: float = 0.25  # of the arms: from the lower edge, seen by their owner
    touching_fraction: float = 0.2  # of the images with two or more arms
    object_fraction: float = 0.2  # of the hands
    occluder_fraction: float = 0.08  # of the images: something between a hand and the camera
    sleeve_fraction: float = 0.55  # of the arms without a person
    hand_size: tuple[float, float] = (0.12, 0.8)  # of arms without a person; people add smaller
    field_of_view_deg: tuple[float, float] = (25.0, 90.0)
    min_visible_px: int = 24
    min_visible_fraction: float = 0.05
    backgrounds: Path | None = None  # a folder of the user's own photographs

    def __post_init__(self) -> None:
        if self.height < 32 or self.width < 32:
            raise ValueError(f'images must be at least 32 px, got {self.width}x{self.height}')
        for name, value in vars(self).items():
            if name.endswith('_fraction') and not 0 <= value <= 1:
                raise ValueError(f'{name} must be in [0, 1], got {value}')
        if self.upright_fraction + self.egocentric_fraction > 1:
            raise ValueError('upright_fraction + egocentric_fraction must be at most 1')
        if len(self.hand_counts) != 4 or min(self.hand_counts) < 0 or sum(self.hand_counts) <= 0:
            raise ValueError(f'hand_counts must be four weights, got {self.hand_counts}')
        for name, (low, high), limit in (
            ('hand_size', self.hand_size, 1.0),
            ('field_of_view_deg', self.field_of_view_deg, 120.0),
        ):
            if not 0 < low <= high <= limit:
                raise ValueError(f'{name} must be 0 < low <= high <= {limit}, got {low}, {high}')
        if self.backgrounds is not None and not Path(self.backgrounds).is_dir():
            raise ValueError(f'backgrounds: no folder {self.backgrounds}')
