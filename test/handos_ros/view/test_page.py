"""The page of a recording: whole in one file, and drawn by a real browser."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, find_chromium
from posed_hands import CAMERA, posed_hand

from handos_model.errors import UserError
from handos_model.hand.model import HandModel
from handos_model.types import Hand
from handos_ros.commands import view
from handos_ros.view.frames import ViewFrame
from handos_ros.view.page import PageConfig, write_page

FACES = HandModel.embedded().faces
STATE = 'JSON.stringify([shown, playing, !!scene.gl, recording.title])'


def frame(index: int, *hands: Hand, **changes: Any) -> ViewFrame:
    values = {
        'stamp_ns': 10**9 + index * 100_000_000,
        'frame_id': 'camera_optical',
        'age_s': 0.02,
        'model': 'nano',
        'hands': list(hands),
        'triangles': FACES,
        'image_rgb': np.full((CAMERA.height, CAMERA.width, 3), 90, np.uint8),
        'camera': CAMERA,
    }
    return ViewFrame(**{**values, **changes})


def two_hands(index: int) -> tuple[Hand, Hand]:
    x_m = 0.09 + 0.01 * index
    return (
        posed_hand(hand_id=1, at_m=(x_m, 0.0, 0.5), flexion_rad=0.1 * index),
        posed_hand('left', hand_id=2, at_m=(-x_m, 0.0, 0.5)),
    )


def data_of(path: Path) -> Any:
    (text,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', path.read_text())
    return json.loads(text)


def test_meshes_and_pictures_come_back(tmp_path: Path) -> None:
    path, hands = tmp_path / 'page.html', two_hands(0)
    assert write_page([frame(0, *hands), frame(1)], path, 'clip') == 2
    data = data_of(path)
    for shown, hand in zip(data['frames'][0]['hands'], hands, strict=True):
        steps = np.frombuffer(base64.b64decode(shown['vertices']), '<i2').reshape(-1, 3)
        vertices_m = steps * data['vertex_unit_m'] + hand.joints_m[9]
        assert np.abs(vertices_m - hand.vertices_m).max() < 1e-5
    assert data['frames'][0]['image'].startswith('data:image/jpeg;base64,')
    assert len(base64.b64decode(data['triangles'])) == 1538 * 3 * 2
    assert data['frames'][1]['hands'] == []


def test_what_cannot_be_drawn_is_left_out(tmp_path: Path) -> None:
    broken = posed_hand(hand_id=1)
    broken = replace(broken, joints_m=np.full((21, 3), np.nan))
    huge = replace(posed_hand(hand_id=2), vertices_m=np.full((778, 3), 1e6))
    bare = frame(0, broken, huge, image_rgb=None, camera=None, triangles=None)
    write_page([bare], tmp_path / 'page.html', 'clip')
    data = data_of(tmp_path / 'page.html')
    (shown,) = data['frames'][0]['hands']
    assert shown['id'] == 2 and shown['vertices'] == '' and data['camera'] is None


def test_a_recording_cannot_put_a_script_into_the_page(tmp_path: Path) -> None:
    evil = '</script><script>alert(1)</script>'
    write_page([frame(0, model=evil)], tmp_path / 'page.html', evil)
    assert evil not in (tmp_path / 'page.html').read_text()
    assert data_of(tmp_path / 'page.html')['model'] == evil


def test_a_long_recording_is_cut_and_an_empty_one_refused(tmp_path: Path) -> None:
    config = PageConfig(most_frames=2)
    assert write_page((frame(i) for i in range(5)), tmp_path / 'page.html', 'clip', config) == 2
    with pytest.raises(UserError, match='handos bag'):
        write_page([], tmp_path / 'page.html', 'clip')


def test_a_topic_is_not_a_recording(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='record it first'):
        view.view('/handos/hands', html=tmp_path / 'page.html')


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    pytest.importorskip('websockets', reason='websockets is missing: it comes with viser')
    program = find_chromium()
    if program is None:
        pytest.skip('no Chromium: install the package chromium to see the page drawn')
    made = Browser(program, tmp_path / 'profile')
    yield made
    made.close()


def wait_for(condition: Callable[[], Any], timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, 'the page does not show it'
        time.sleep(0.2)


def counts(browser: Browser) -> tuple[int, int]:
    """Pixels of a right and of a left hand's hue in the 3D view."""
    box = json.loads(browser.evaluate("JSON.stringify(element('scene').getBoundingClientRect())"))
    picture = browser.screenshot_rgb().astype(int)
    rows = slice(max(0, int(box['top'])), int(box['bottom']))
    red, green, blue = np.moveaxis(picture[rows, int(box['left']) : int(box['right'])], -1, 0)
    orange = (red - green > 25) & (green - blue > 20) & (red > 90)
    bluish = (blue - green > 20) & (green - red > 25) & (blue > 90)
    return int(orange.sum()), int(bluish.sum())


def test_a_browser_plays_the_page_and_asks_nobody_for_anything(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / 'page.html'
    write_page([frame(0), *(frame(i, *two_hands(i)) for i in (1, 2))], path, 'clip')
    browser.open(path.as_uri())
    browser.evaluate('jump(0)')
    wait_for(lambda: counts(browser) == (0, 0))
    browser.evaluate("element('time').value = 2; element('time').oninput({target: {value: '2'}})")
    wait_for(lambda: min(counts(browser)) > 2000)
    assert json.loads(browser.evaluate(STATE)) == [2, False, True, 'clip']
    browser.evaluate("element('play').click()")  # from the end it begins anew
    wait_for(lambda: json.loads(browser.evaluate(STATE))[:2] == [0, True])
    browser.command(
        'Emulation.setDeviceMetricsOverride',
        width=390, height=844, deviceScaleFactor=2, mobile=True,
    )  # fmt: skip
    wait_for(lambda: browser.evaluate('innerWidth') == 390)
    assert browser.evaluate('document.documentElement.scrollWidth') == 390  # nothing sticks out
    assert all(url.startswith(('file:', 'data:')) for url in browser.requests)
