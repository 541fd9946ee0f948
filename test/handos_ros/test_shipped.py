"""What a person meets first: the shipped weights, and the demo that shows them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from handos_model.pipeline import HandPipeline
from handos_model.types import Camera
from handos_model.weights.exported import ExportedWeights
from handos_model.weights.store import find_weights, verify_checksums
from handos_ros.commands.demo import CLIP

LIMIT_MB = 40


def frames(path: Path, every: int) -> list:
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        done, image = capture.read()
        if not done:
            return found[::every]
        found.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def test_the_folder_is_whole_small_and_has_a_card():
    folder = find_weights('nano')
    verify_checksums(folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LIMIT_MB * 1e6
    assert {graph.hands for graph in ExportedWeights.load(folder).graphs} == {None, 1, 2, 4}
    window = ExportedWeights.load_window(folder)
    assert window is not None and {graph.hands for graph in window.graphs} == {None, 1}
    assert window.variants() == ExportedWeights.load(folder).variants()
    assert 'Apache-2.0' in (folder / 'README.md').read_text()


def test_the_hand_of_the_clip_is_found_where_it_is():
    images = frames(CLIP, every=20)
    height, width = images[0].shape[:2]
    pipeline = HandPipeline('nano')
    found = [pipeline(image, Camera.uncalibrated(width, height)) for image in images]
    best = [max(hands, key=lambda hand: hand.score) for hands in found if hands]
    assert len(best) >= 0.9 * len(images)
    inside = [(hand.joints_px > 0).all() and (hand.joints_px < [width, height]).all()
              for hand in best]  # fmt: skip
    assert sum(inside) >= 0.8 * len(best)


def test_a_video_is_followed_from_the_command_line(tmp_path: Path):
    found = {}
    for follow in (0, 8):
        lines = tmp_path / f'{follow}.jsonl'
        command = [
            sys.executable,
            '-m',
            'handos_ros.cli',
            'video',
            str(CLIP),
            '--json',
            str(lines),
        ]
        subprocess.run(
            [*command, '--follow', str(follow), '--max-frames', '40'], check=True, timeout=120
        )
        found[follow] = [json.loads(line)['hands'] for line in lines.read_text().splitlines()]
    assert len(found[0]) == len(found[8]) == 40
    assert sum(map(bool, found[8])) >= sum(map(bool, found[0])) - 1
    ids = {hand['id'] for hands in found[8] for hand in hands}
    assert len(ids) <= 2


@pytest.mark.parametrize('name', ['hands.html', 'overlay.mp4', 'hands.mcap', 'overlay.png'])
def test_the_demo_leaves_what_it_announces(demo: tuple[str, Path], name: str):
    said, folder = demo
    assert (folder / name).stat().st_size > 1000
    assert str(folder / name) in said.replace('\n', '')


def test_every_line_that_the_demo_ends_with_works_when_typed(demo: tuple[str, Path]):
    said, folder = demo
    lines = [line.strip() for line in said.split('Next:\n')[1].splitlines()]
    assert len(lines) == 2
    for line in lines:
        subprocess.run(line, shell=True, check=True, capture_output=True, timeout=240)
    assert (folder / 'again.html').read_text() == (folder / 'hands.html').read_text()
    assert list((folder / 'pictures').iterdir())


def test_the_demo_s_video_plays(demo: tuple[str, Path]):
    played = frames(demo[1] / 'overlay.mp4', every=1)
    assert len(played) >= 10
    assert played[0].shape[2] == 3


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp('demo')
    done = subprocess.run(
        [sys.executable, '-m', 'handos_ros.cli', 'demo', '--out', str(folder), '--limit', '60'],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {'COLUMNS': '300', 'ROS_DOMAIN_ID': str(100 + os.getpid() % 100)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, folder
