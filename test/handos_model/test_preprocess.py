"""The letterbox: exact both ways, and what cv2 does is what the mapping says."""

import numpy as np
import pytest

from handos_model.geometry.projection import project
from handos_model.preprocess import PADDING_VALUE, Letterbox
from handos_model.types import Camera

SIZES = [(480, 640), (720, 1280), (1280, 720), (333, 777), (100, 90), (480, 641), (1, 1)]


@pytest.mark.parametrize('image_hw', SIZES)
def test_points_and_boxes_go_there_and_back(image_hw: tuple[int, int]) -> None:
    letterbox = Letterbox(image_hw, (480, 640))
    random = np.random.default_rng(0)
    points = random.uniform(-0.5, np.array(image_hw[::-1]) - 0.5, (30, 2))
    there = letterbox.to_network(points)
    assert (there > -1e-9).all() and (there < 1 + 1e-9).all()
    np.testing.assert_allclose(letterbox.to_image(there), points, atol=1e-9)
    corners = np.sort(points.reshape(15, 2, 2), axis=1).reshape(15, 4)
    again = letterbox.boxes_to_image(letterbox.boxes_to_network(corners))
    np.testing.assert_allclose(again, corners, atol=1e-9)


@pytest.mark.parametrize(
    'image_hw', [(480, 640), (720, 1280), (1080, 1920), (240, 320), (501, 333)]
)
def test_a_blob_lands_where_the_mapping_says(image_hw: tuple[int, int]) -> None:
    letterbox = Letterbox(image_hw, (480, 640))
    rows, columns = np.mgrid[: image_hw[0], : image_hw[1]]
    centre = np.array([image_hw[1] * 0.61, image_hw[0] * 0.37])
    sigma = 0.03 * max(image_hw)
    blob = np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / (2 * sigma**2))
    image = np.repeat((blob * 255).astype(np.uint8)[..., None], 3, axis=2)
    buffer = letterbox.buffer()
    letterbox.apply(image, buffer)
    h, w = letterbox.content_hw
    content = np.zeros((480, 640))
    window = np.s_[letterbox.top : letterbox.top + h, letterbox.left : letterbox.left + w]
    content[window] = buffer[0][window][..., 0]
    rows, columns = np.mgrid[:480, :640]
    measured = np.array([(columns * content).sum(), (rows * content).sum()]) / content.sum()
    expected = letterbox.to_network(centre) * [640, 480] - 0.5
    np.testing.assert_allclose(measured, expected, atol=0.06)


def test_writes_into_the_buffer_and_leaves_the_padding() -> None:
    letterbox = Letterbox((100, 400), (480, 640))
    buffer = letterbox.buffer()
    image = np.zeros((100, 400, 3), np.uint8)
    image[..., 0] = 255
    letterbox.apply(image, buffer)
    assert buffer.shape == (1, 480, 640, 3)
    assert (buffer[0, :160] == PADDING_VALUE).all() and (buffer[0, 320:] == PADDING_VALUE).all()
    assert (buffer[0, 160:320] == [255, 0, 0]).all()
    letterbox.apply(image, buffer, 'bgr')
    assert (buffer[0, 160:320] == [0, 0, 255]).all()


def test_wrong_images_are_refused() -> None:
    letterbox = Letterbox((100, 400), (480, 640))
    with pytest.raises(ValueError, match='uint8'):
        letterbox.apply(np.zeros((100, 399, 3), np.uint8), letterbox.buffer())
    with pytest.raises(ValueError, match='float32'):
        letterbox.apply(np.zeros((100, 400, 3), np.float32), letterbox.buffer())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='positive'):
        Letterbox((0, 10), (480, 640))


@pytest.mark.parametrize('image_hw', SIZES)
def test_cameras_follow_the_pixels(image_hw: tuple[int, int]) -> None:
    letterbox = Letterbox(image_hw, (480, 640))
    matrix = np.array([[700.0, 0, 300], [0, 710, 200], [0, 0, 1]])
    camera = Camera(image_hw[1], image_hw[0], matrix, np.array([-0.1, 0.02, 0, 0, 0]))
    points = np.random.default_rng(2).uniform([-0.2, -0.2, 0.8], [0.2, 0.2, 1.2], (10, 3))
    seen = Camera(640, 480, letterbox.matrix @ matrix, camera.distortion)
    in_network = project(points, seen)
    expected = letterbox.to_network(project(points, camera)) * [640, 480] - 0.5
    np.testing.assert_allclose(in_network, expected, atol=1e-9)


def test_a_fine_pattern_does_not_alias_when_it_is_shrunk() -> None:
    """One-pixel stripes average to grey at every reduction, halved or not."""
    for image_hw in ((720, 1280), (719, 1281), (1080, 1920)):
        image = np.zeros((*image_hw, 3), np.uint8)
        image[:, ::2] = 255
        letterbox = Letterbox(image_hw, (192, 256))
        buffer = letterbox.buffer()
        letterbox.apply(image, buffer)
        middle = buffer[0, 96, 20:-20].astype(int)
        assert (np.abs(middle - 127.5) < 40).all()
