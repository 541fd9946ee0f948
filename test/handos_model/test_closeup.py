"""A box enlarged into a window: what is drawn, and the way back to the image's pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handos_model.preprocess import (
    HAND_IN_WINDOW,
    PADDING_VALUE,
    STILL_HAND_IN_WINDOW,
    Closeup,
)

NETWORK_HW, CORNER, WINDOW_HW = (224, 288), (32, 64), (128, 128)


def closeup_about(box: list[float], image_hw: tuple[int, int] = (480, 640)) -> Closeup:
    return Closeup.about(np.array(box, float), image_hw, NETWORK_HW, CORNER, WINDOW_HW)


def seen(closeup: Closeup, image: np.ndarray, order: str = 'rgb') -> np.ndarray:
    view = np.zeros((1, *WINDOW_HW, 3), np.uint8)
    closeup.apply(image, view, order)  # type: ignore[arg-type]
    return view[0]


@pytest.mark.parametrize(
    'box',
    [
        [300, 200, 340, 230],  # enlarged
        [100, 100, 400, 420],  # reduced by more than half
        [0, 0, 60, 80],  # at the border
        [560, 400, 639.5, 479.5],
        [200, 100, 330, 230],
    ],
)
def test_a_dot_of_the_image_is_found_where_the_mapping_says(box: list[float]) -> None:
    closeup = closeup_about(box)
    for x, y in ((0.5, 0.5), (0.3, 0.6), (0.7, 0.4)):
        dot = np.array([box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1])]).round()
        image = np.zeros((480, 640, 3), np.uint8)
        radius = max(2, int(3 / closeup.scale))
        cv2.circle(image, tuple(dot.astype(int).tolist()), radius, (255, 255, 255), -1)
        view = seen(closeup, image)[..., 0].astype(float)
        view[view <= PADDING_VALUE] = 0
        rows, columns = np.indices(view.shape)
        middle = np.array([(columns * view).sum(), (rows * view).sum()]) / view.sum()
        whole = (middle + 0.5 + np.array(CORNER[::-1])) / np.array(NETWORK_HW[::-1])
        off_px = np.abs(closeup.to_image(whole) - dot) * closeup.scale
        assert off_px.max() < 0.3  # pixels of the window


@pytest.mark.parametrize('part', [HAND_IN_WINDOW, STILL_HAND_IN_WINDOW])
def test_the_box_comes_into_the_middle_at_its_size(part: float) -> None:
    box = np.array([100.0, 50, 180, 90])
    closeup = Closeup.about(box, (480, 640), NETWORK_HW, CORNER, WINDOW_HW, part)
    side = part * 128
    size = np.array([side, side / 2]) / NETWORK_HW[::-1]
    centre = (np.array(CORNER[::-1]) + 64) / np.array(NETWORK_HW[::-1])
    found = closeup.boxes_to_image(np.concatenate([centre, size]))
    np.testing.assert_allclose(found, box, atol=1e-9)


def test_beyond_the_image_all_is_grey() -> None:
    view = seen(closeup_about([0, 0, 60, 60]), np.zeros((480, 640, 3), np.uint8))
    assert (view[:10, :10] == PADDING_VALUE).all()
    assert (view[70:100, 70:100] == 0).all()


def test_blue_and_red_change_places_for_bgr() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[..., 0] = 200
    closeup = closeup_about([200, 100, 330, 230])
    assert (seen(closeup, image, 'bgr') == seen(closeup, image)[..., ::-1]).all()
    assert seen(closeup, image)[64, 64].tolist() == [200, 0, 0]


def test_fine_stripes_do_not_alias() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, ::2] = 255
    view = seen(closeup_about([50, 20, 550, 460]), image)
    assert view[40:90, 40:90].std() < 3


@pytest.mark.parametrize(
    'box', [[630, 470, 639, 479], [0, 0, 0.2, 0.2], [-0.5, -0.5, 639.5, 479.5]]
)
def test_no_box_is_too_small_or_too_large(box: list[float]) -> None:
    closeup = closeup_about(box)
    assert seen(closeup, np.full((480, 640, 3), 50, np.uint8)).any()
    assert np.isfinite(closeup.to_image(np.array([0.5, 0.5]))).all()


def test_a_box_beside_the_image_shows_grey() -> None:
    view = seen(closeup_about([900, 700, 960, 760]), np.full((480, 640, 3), 50, np.uint8))
    assert (view == PADDING_VALUE).all()
