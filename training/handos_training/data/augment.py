"""Random changes of a sample that keep every label exact (geometry) or untouched (colour).

Geometry is one affine map that also fits the image into the network's input, so pixels are
resampled once. Full images always: scale and shift never cut the image down to a hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from handos_training.data.sample import Sample
from handos_training.data.transform import drop_remnants, flip, letterbox, mirror, warp

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities in [0,1] and ranges, each drawn uniformly (scale: log-uniformly)."""

    flip: float = 0.5
    geometry: float = 0.8
    focus: float = 0.0  # framed around one of the hands instead of the whole image
    focus_side: tuple[float, float] = (0.35, 0.9)  # its longer side, of the input's shorter one
    scale: tuple[float, float] = (0.6, 1.6)
    shift: float = 0.15  # of the image's size, each way
    rotation_deg: float = 30.0  # each way
    any_turn: float = 0.0  # turned by any angle instead: thumbs down, hands that hang
    colour: float = 0.8
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.4
    white_balance: float = 0.1
    greyscale: float = 0.05
    blur: float = 0.2
    blur_sigma_px: tuple[float, float] = (0.3, 2.0)
    motion_blur: float = 0.1
    motion_px: tuple[int, int] = (3, 13)
    noise: float = 0.3
    noise_sigma: tuple[float, float] = (1.0, 12.0)  # of 255
    jpeg: float = 0.2
    jpeg_quality: tuple[int, int] = (30, 95)
    erase: float = 0.3
    erase_side: tuple[float, float] = (0.1, 0.5)  # of the hand's longer side
    max_erased: int = 2

    def __post_init__(self) -> None:
        for name in (
            'flip',
            'geometry',
            'focus',
            'any_turn',
            'colour',
            'greyscale',
            'blur',
            'motion_blur',
            'noise',
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name} is a probability, got {getattr(self, name)}')
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f'scale must be a positive range, got {self.scale}')


class Augment:
    """Sample -> sample of `network_hw`, changed at random."""

    def __init__(self, network_hw: tuple[int, int], config: AugmentConfig | None = None) -> None:
        self.network_hw = network_hw
        self.config = config or AugmentConfig()

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        config = self.config
        flipped = rng.random() < config.flip
        # One warp mirrors, too; the letterbox resamples as the pipeline does, which never mirrors.
        seen_from = mirror(self.network_hw[1]) if flipped else np.eye(3)
        if len(sample.hands) and rng.random() < config.focus:
            box = sample.hands.boxes_xyxy_px[int(rng.integers(len(sample.hands)))].numpy()
            matrix = seen_from @ framing(box, self.network_hw, config, rng)
            sample = warp(sample, matrix, self.network_hw)
        elif rng.random() < config.geometry:
            matrix = random_affine(sample.image.shape[1:], self.network_hw, config, rng)
            sample = warp(sample, seen_from @ matrix, self.network_hw)
        else:
            sample = letterbox(flip(sample) if flipped else sample, self.network_hw)
        if rng.random() < config.erase:
            sample = erase(sample, config, rng)
        image = photometric(sample.image.permute(1, 2, 0).numpy(), config, rng)
        return sample.replace(image=torch.from_numpy(image).permute(2, 0, 1))


def random_affine(
    image_hw: tuple[int, ...],
    network_hw: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Fit the image into the network's input, then scale, turn and shift about its middle."""
    (h, w), (H, W) = image_hw[:2], network_hw
    scale = min(H / h, W / w) * _log_uniform(config.scale, rng)
    shift = rng.uniform(-config.shift, config.shift, 2) * [W, H]
    centre, target = np.array([w - 1, h - 1]) / 2, np.array([W - 1, H - 1]) / 2 + shift
    return _turn_and_scale(centre, target, scale, config, rng)


def framing(
    box_xyxy_px: npt.NDArray[np.float32],
    network_hw: tuple[int, int],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Put a hand's box somewhere inside the network's input, at a size of `focus_side`.

    The affine map [3,3], old pixel to new pixel, for a box [4] xyxy. For a network that learns
    hands from nothing: the same hands in a fraction of the pixels.
    """
    H, W = network_hw
    low, high = box_xyxy_px[:2].astype(np.float64), box_xyxy_px[2:].astype(np.float64)
    side = max(float((high - low).max()), 1.0)
    wanted = min(H, W) * _log_uniform(config.focus_side, rng)
    room = np.maximum(np.array([W, H]) - wanted, 0) / 2
    target = np.array([W - 1, H - 1]) / 2 + rng.uniform(-1, 1, 2) * room
    return _turn_and_scale((low + high) / 2, target, wanted / side, config, rng)


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _turn_and_scale(
    centre: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    scale: float,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Affine [3,3] that takes `centre` to `target` [2], scaled and turned at random about it."""
    any_turn = config.any_turn > 0 and rng.random() < config.any_turn
    limit = 180.0 if any_turn else config.rotation_deg
    angle = np.deg2rad(rng.uniform(-limit, limit))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, target - linear @ centre
    return matrix


def erase(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Cover parts of hands with flat or noisy rectangles: what they cover is no longer visible."""
    for _ in range(int(rng.integers(1, config.max_erased + 1))):
        if not len(sample.hands):
            break
        box = sample.hands.boxes_xyxy_px[int(rng.integers(len(sample.hands)))].numpy()
        side = (box[2:] - box[:2]).max()
        size = side * rng.uniform(*config.erase_side, 2)
        centre = rng.uniform(box[:2], box[2:])
        sample = cover(
            sample, np.round(np.concatenate([centre - size / 2, centre + size / 2])), rng
        )
    return sample


def cover(sample: Sample, rectangle: npt.NDArray[np.float64], rng: np.random.Generator) -> Sample:
    """Paint over the pixels whose centres lie in `rectangle` (x0, y0, x1, y1; integers).

    Visible boxes shrink where the rectangle crosses them from side to side, and a hand that is
    covered wholly is no longer labelled.
    """
    height, width = sample.image.shape[1:]
    x0, y0 = np.clip(rectangle[:2], 0, [width, height]).astype(int)
    x1, y1 = np.clip(rectangle[2:] + 1, 0, [width, height]).astype(int)
    if x1 <= x0 or y1 <= y0:
        return sample
    image = sample.image.clone()
    paint = rng.integers(0, 256, (3, 1, 1)) + rng.normal(
        0, rng.choice([0, 40]), (3, y1 - y0, x1 - x0)
    )
    image[:, y0:y1, x0:x1] = torch.from_numpy(paint.clip(0, 255).astype(np.uint8))
    hands = sample.hands
    left, top, right, bottom = x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5

    low, high = torch.tensor([left, top]), torch.tensor([right, bottom])

    def hidden(pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels >= low) & (pixels <= high)).all(-1)

    matrix = sample.camera_matrix_px
    points = (hands.vertices_m + hands.translation_m[:, None]) @ matrix.T
    vertices_px = points[..., :2] / points[..., 2:].clamp(min=1e-6)
    placed = (hands.has_vertices_m & hands.has_translation)[:, None]
    hands = replace(
        hands,
        joint_visible=hands.joint_visible & ~(hidden(hands.joints_px) & hands.has_joint_px),
        vertex_visible=hands.vertex_visible & ~(hidden(vertices_px) & placed),
        boxes_xyxy_px=_uncovered(hands.boxes_xyxy_px, left, top, right, bottom),
    )
    box = sample.hands.boxes_xyxy_px
    areas = (box[:, 2:] - box[:, :2]).prod(1)
    return drop_remnants(sample.replace(image=image, hands=hands), areas)


def _uncovered(
    boxes: torch.Tensor, left: float, top: float, right: float, bottom: float
) -> torch.Tensor:
    """The smallest boxes around what a rectangle leaves of each box [N,4]."""
    x0, y0, x1, y1 = boxes.unbind(1)
    across = (left <= x0) & (right >= x1)  # covers the whole width
    down = (top <= y0) & (bottom >= y1)
    new_x0 = torch.where(down & (left <= x0), torch.maximum(x0, torch.full_like(x0, right)), x0)
    new_x1 = torch.where(down & (right >= x1), torch.minimum(x1, torch.full_like(x1, left)), x1)
    new_y0 = torch.where(across & (top <= y0), torch.maximum(y0, torch.full_like(y0, bottom)), y0)
    new_y1 = torch.where(across & (bottom >= y1), torch.minimum(y1, torch.full_like(y1, top)), y1)
    return torch.stack([new_x0, new_y0, new_x1, new_y1], dim=1)


def photometric(image: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Colour, blur, noise and compression of [H,W,3]; labels do not change."""
    pixels = image.astype(np.float32)
    if rng.random() < config.colour:
        pixels = _colour(pixels, config, rng)
    if rng.random() < config.greyscale:
        pixels[...] = pixels.mean(-1, keepdims=True)
    if rng.random() < config.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(*config.blur_sigma_px)))
    if rng.random() < config.motion_blur:
        pixels = cv2.filter2D(pixels, -1, _motion_kernel(config, rng))
    if rng.random() < config.noise:
        sigma = float(rng.uniform(*config.noise_sigma))
        pixels = pixels + _noise(pixels.shape, rng) * np.float32(sigma)
    done: Image = pixels.round().clip(0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
        coded = cv2.imencode('.jpg', done[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        done = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    return done


def _colour(
    pixels: npt.NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Brightness and white balance, contrast about the mean, saturation: one 3 x 4 colour map."""

    def around_one(spread: float, size: int | None = None) -> npt.NDArray[np.float64]:
        return np.asarray(rng.uniform(1 - spread, 1 + spread, size))

    gains = around_one(config.brightness) * around_one(config.white_balance, 3)
    contrast, saturation = around_one(config.contrast), around_one(config.saturation)
    mean = float((np.array(cv2.mean(pixels)[:3]) * gains).mean())
    mix = saturation * np.eye(3) + (1 - saturation) / 3  # keeps greys
    linear = contrast * mix * gains
    offset = np.full((3, 1), (1 - contrast) * mean)
    return np.asarray(cv2.transform(pixels, np.hstack([linear, offset])), np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Unit noise, nearly normal: three bytes summed, a fifth of the time of normal numbers."""
    total = rng.integers(0, 256, (3, *shape), dtype=np.uint8).sum(0, dtype=np.float32)
    return np.asarray((total - 382.5) / 128.0, np.float32)


def _motion_kernel(config: AugmentConfig, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A line through the middle, so that labels stay where the blurred hand is centred."""
    length = int(rng.integers(config.motion_px[0], config.motion_px[1] + 1)) | 1
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    middle = ((length - 1) / 2, (length - 1) / 2)
    turned = cv2.warpAffine(
        kernel, cv2.getRotationMatrix2D(middle, float(rng.uniform(0, 180)), 1), (length, length)
    )
    return np.asarray(turned / turned.sum(), np.float32)
