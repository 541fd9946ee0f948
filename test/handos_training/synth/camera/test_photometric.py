"""The camera: compression, blurs, noise and tone, each against what it must do."""

import math

import pytest
import torch

from handos_training.synth.camera.filters import gaussian_blur, motion_blur, smooth_
from handos_training.synth.camera.jpeg import _dct, compress
from handos_training.synth.camera.photometric import PhotometricConfig, encode_, photograph
from handos_training.synth.sampling import Sampler


def sampler(seed: int = 0) -> Sampler:
    return Sampler(torch.Generator().manual_seed(seed))


def picture(B: int = 2, H: int = 48, W: int = 64) -> torch.Tensor:
    """A smooth colourful image in [0,255]."""
    y, x = torch.meshgrid(torch.linspace(0, 3, H), torch.linspace(0, 4, W), indexing='ij')
    channels = [(x + y).sin(), (x - 0.5 * y).cos(), (0.5 * x * y).sin()]
    return (torch.stack(channels) * 100 + 128)[None].repeat(B, 1, 1, 1)


def test_dct_is_orthonormal() -> None:
    matrix = _dct(torch.zeros(1, dtype=torch.float64))
    assert torch.allclose(matrix @ matrix.T, torch.eye(64, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(matrix[0], torch.full((64,), 1 / 8, dtype=torch.float64))


def test_jpeg_at_the_top_quality_changes_little_and_less_than_at_a_low_one() -> None:
    image = picture()
    errors = [
        (compress(image, torch.full((2,), quality)) - image).abs().mean()
        for quality in (100.0, 70.0, 10.0)
    ]
    assert errors[0] < 0.7
    assert errors[0] < errors[1] < errors[2]
    assert errors[2] > 2


def test_jpeg_keeps_the_size_the_range_and_greys() -> None:
    grey = (torch.rand(1, 1, 37, 51, generator=torch.Generator().manual_seed(1)) * 255).expand(
        -1, 3, -1, -1
    )
    result = compress(grey, torch.tensor([20.0]))
    assert result.shape == grey.shape
    assert result.min() >= 0
    assert result.max() <= 255
    assert (result - result[:, :1]).abs().max() < 1e-2


def test_jpeg_quality_is_each_images_own() -> None:
    image = picture()
    both = compress(image, torch.tensor([95.0, 10.0]))
    assert torch.allclose(both[:1], compress(image[:1], torch.tensor([95.0])), atol=1e-3)
    assert torch.allclose(both[1:], compress(image[1:], torch.tensor([10.0])), atol=1e-3)


def test_smoothing_is_its_kernel_and_keeps_the_sum() -> None:
    impulse = torch.zeros(1, 1, 7, 7)
    impulse[0, 0, 3, 3] = 1
    line = torch.tensor([0.2, 0.6, 0.2])
    result = smooth_(impulse.clone(), torch.tensor([0.2]))
    assert torch.allclose(result[0, 0, 2:5, 2:5], line[:, None] * line, atol=1e-6)
    corner = torch.zeros(1, 1, 5, 5)
    corner[0, 0, 0, 0] = 1
    assert smooth_(corner, torch.tensor([0.2])).sum() == pytest.approx(1, abs=1e-6)


def test_gaussian_blur_has_the_asked_width_in_each_image() -> None:
    impulse = torch.zeros(2, 1, 41, 41)
    impulse[:, :, 20, 20] = 1
    result = gaussian_blur(impulse, torch.tensor([1.0, 3.0]))
    offset = (torch.arange(41) - 20).float()
    for image, sigma in zip(result, (1.0, 3.0), strict=True):
        assert image.sum() == pytest.approx(1, abs=1e-4)
        assert (image.sum((0, 1)) * offset**2).sum().sqrt() == pytest.approx(sigma, rel=0.06)


def test_motion_blur_is_along_its_direction() -> None:
    impulse = torch.zeros(2, 1, 31, 31)
    impulse[:, :, 15, 15] = 1
    result = motion_blur(impulse, torch.tensor([9.0, 9.0]), torch.tensor([0, math.pi / 2]))
    assert (result[0, 0, 15] > 0).sum() == 9
    assert (result[0, 0, :, 15] > 0).sum() == 1
    assert torch.allclose(result[0, 0], result[1, 0].T, atol=1e-6)


def test_tone_curve_is_that_of_srgb() -> None:
    x = torch.linspace(0, 1, 1001)
    srgb = torch.where(x < 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    assert (encode_(x.clone()) - srgb).abs().max() < 0.012


def test_photographs_are_the_same_for_the_same_seed_and_use_the_range() -> None:
    linear = torch.rand(6, 3, 40, 56, generator=torch.Generator().manual_seed(3)) * 2
    seen = torch.zeros(6, 1, 40, 56)
    seen[:, :, 10:30, 10:30] = 1
    config = PhotometricConfig()
    first = photograph(linear.clone(), seen, config, sampler(5))
    again = photograph(linear.clone(), seen, config, sampler(5))
    other = photograph(linear.clone(), seen, config, sampler(6))
    assert first.dtype == torch.uint8
    assert first.shape == linear.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.float().flatten(1).std(1).min() > 3


@pytest.mark.parametrize('brightness', [1e-3, 1.0, 100.0])
def test_exposure_follows_the_scene(brightness: float) -> None:
    linear = torch.full((16, 3, 32, 32), brightness)
    config = PhotometricConfig(exposure_stops=0)
    image = photograph(linear, torch.ones(16, 1, 32, 32), config, sampler()).float()
    assert 90 < image.mean() < 190


def test_every_effect_at_once_stays_finite_and_none_leaves_the_picture() -> None:
    everything = PhotometricConfig(1, 1, 1, 1, 1, 1, 0.2)
    black = photograph(torch.zeros(2, 3, 33, 47), torch.zeros(2, 1, 33, 47), everything, sampler())
    assert black.float().mean() < 60
    linear = torch.linspace(0, 1, 64).expand(1, 3, 48, 64).clone()
    nothing = PhotometricConfig(0, 0, 0, 0, 0, 0, 0)
    result = photograph(linear, torch.ones(1, 1, 48, 64), nothing, sampler(2)).float()
    columns = result.mean((0, 1, 2))
    assert (columns[8:] - columns[:-8] > 0).all()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match='jpeg_fraction'):
        PhotometricConfig(jpeg_fraction=1.5)
