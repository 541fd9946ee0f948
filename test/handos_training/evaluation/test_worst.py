"""The sheet keeps the worst pictures, the worst first."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_training.evaluation.worst import WorstSheet


def sheet() -> WorstSheet:
    return WorstSheet(HandModel.embedded().faces, limit=3, columns=2, tile_px=8)


def test_keeps_the_worst_in_order(tmp_path: Path) -> None:
    one = sheet()
    for grey in (40, 200, 10, 120):  # as bad as they are bright
        one.add(np.full((16, 16, 3), grey, np.uint8), [], grey)
    one.write(tmp_path / 'new' / 'worst.png')
    drawn = cv2.imread(str(tmp_path / 'new' / 'worst.png'))
    assert drawn.shape == (16, 16, 3)
    corners = [drawn[y, x, 0] for y, x in ((0, 0), (0, 8), (8, 0), (8, 8))]
    assert corners == [200, 120, 40, 0]


def test_a_wide_picture_keeps_its_shape(tmp_path: Path) -> None:
    one = sheet()
    one.add(np.full((8, 32, 3), 255, np.uint8), [], 1.0)
    one.write(tmp_path / 'worst.png')
    drawn = cv2.imread(str(tmp_path / 'worst.png'))
    assert drawn.shape == (8, 16, 3) and drawn[:2, :8].min() == 255 and drawn[2:].max() == 0


def test_nothing_to_show_writes_nothing(tmp_path: Path) -> None:
    sheet().write(tmp_path / 'worst.png')
    assert not list(tmp_path.iterdir())


def test_says_where_it_cannot_write(tmp_path: Path) -> None:
    one = sheet()
    one.add(np.zeros((8, 8, 3), np.uint8), [], 1.0)
    with pytest.raises(UserError, match=r'worst\.jpg'):
        (tmp_path / 'worst.jpg').mkdir()
        one.write(tmp_path / 'worst.jpg')
