"""What the README tells a person to type: it works, or another test runs it."""

import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import cv2
import pytest

from handos_model.types import Camera
from handos_ros.commands.demo import CLIP

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text()
BINARIES = Path(sys.executable).parent
# Typed here as the README has them, where photo.jpg is a picture of the bundled clip.
RUN_HERE = (
    'handos doctor',
    'handos image photo.jpg --overlay out',
    'handos-synth preview --count 24 --out sheet.png',
)
# Those that need a camera, never end, or take days: the tests that run them in miniature.
RUN_ELSEWHERE = {
    'handos camera 0': 'handos_ros/test_end_to_end.py',
    'handos run': 'handos_ros/test_end_to_end.py',
    'handos echo': 'handos_ros/test_end_to_end.py',
    'handos convert-mano': 'handos_model/hand/test_mano_pickle.py',
    'handos-train nano_full': 'handos_training/test_train.py',
    'handos-eval synth --weights runs/nano_full/weights': 'handos_training/test_evaluate.py',
}


def commands() -> set[str]:
    """Every `handos...` command line of the README, in blocks and in sentences."""
    lines = re.findall(r'^(handos[ -][^#&\n]*)', README, re.M)
    return {line.strip() for line in lines + re.findall(r'`(handos[ -][^`]+)`', README)}


@pytest.fixture(scope='module')
def picture():
    done, image = cv2.VideoCapture(str(CLIP)).read()
    assert done
    return image


def test_every_command_is_run_somewhere():
    assert commands() == set(RUN_HERE) | RUN_ELSEWHERE.keys()
    for command, file in RUN_ELSEWHERE.items():
        assert (ROOT / 'test' / file).is_file(), command


@pytest.mark.parametrize('command', RUN_HERE)
def test_the_commands_that_end_do_what_they_say(command, picture, tmp_path):
    cv2.imwrite(str(tmp_path / 'photo.jpg'), picture)
    program, *arguments = command.split()
    subprocess.run([BINARIES / program, *arguments], cwd=tmp_path, check=True, timeout=300)
    for name in re.findall(r'--(?:out|overlay) (\S+)', command):
        assert (tmp_path / name).exists(), name


@pytest.mark.parametrize('command', sorted(RUN_ELSEWHERE))
def test_the_other_commands_take_what_they_are_given(command):
    program, first, *others = command.split()
    help_text = subprocess.run(
        [BINARIES / program, first, '--help'], check=True, capture_output=True, text=True
    ).stdout
    for option in (word for word in others if word.startswith('--')):
        assert option in help_text, option


def test_the_python_example_finds_the_hand(picture):
    (example,) = re.findall(r'```python\n(.*?)```', README, re.S)
    image_rgb = cv2.resize(picture[..., ::-1], (640, 480))
    names = {'image_rgb': image_rgb, 'matrix_px': Camera.uncalibrated(640, 480).matrix_px}
    exec(example, names)
    assert len(names['hands']) >= 1


def test_the_extras_exist():
    known = set(metadata('handos-ros').get_all('Provides-Extra'))
    for extras in re.findall(r"'\.\[([\w,-]+)\]'", README):
        assert set(extras.split(',')) <= known


def test_make_has_the_targets():
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'^make (\w+)', README, re.M):
        assert re.search(rf'^{target}:', makefile, re.M), target


def test_links_and_pictures_exist():
    for target in re.findall(r'\]\(([^)#]+)\)', README):
        assert target.startswith('http') or (ROOT / target).exists(), target
