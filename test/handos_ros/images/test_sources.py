"""What `handos camera` reads, and the command line around it."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from handos_model.errors import UserError
from handos_ros.cli import without_ros_args
from handos_ros.images.camera_files import read_camera_file
from handos_ros.images.sources import ImageSource

CALIBRATION = """
image_width: 640
image_height: 480
camera_name: webcam
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 320, 0, 510, 240, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
"""


def test_a_folder_of_images_in_order(tmp_path):
    for index in (2, 0, 1):
        bgr = np.zeros((8, 10, 3), np.uint8)
        bgr[..., 2] = index * 50  # red
        cv2.imwrite(str(tmp_path / f'{index}.png'), bgr)
    (tmp_path / 'notes.txt').write_text('no image')
    source = ImageSource(str(tmp_path))
    assert [int(image[0, 0, 0]) for image in source.frames()] == [0, 50, 100]
    source.rewind()
    assert len(list(source.frames())) == 3 and not source.live
    source.close()


def test_a_video_with_its_own_rate(tmp_path):
    path = str(tmp_path / 'clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 12.0, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), index * 40, np.uint8))
    writer.release()
    source = ImageSource(path)
    assert source.rate_hz == pytest.approx(12.0)
    assert len(list(source.frames())) == 5
    source.rewind()
    assert len(list(source.frames())) == 5
    source.close()


@pytest.mark.parametrize('kind', ['missing', 'empty folder', 'text', 'camera 63'])
def test_what_is_no_source_is_named(tmp_path, kind):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.mp4').write_text('no video')
    source = {
        'missing': str(tmp_path / 'missing'),
        'empty folder': str(tmp_path / 'empty'),
        'text': str(tmp_path / 'text.mp4'),
        'camera 63': '63',
    }[kind]
    with pytest.raises(UserError, match=source.rsplit('/', 1)[-1]):
        ImageSource(source)


def test_a_damaged_image_is_named(tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no png')
    with pytest.raises(UserError, match=r'broken\.png'):
        list(ImageSource(str(tmp_path)).frames())


def test_a_calibration_file(tmp_path):
    path = tmp_path / 'camera.yaml'
    path.write_text(CALIBRATION)
    camera = read_camera_file(path)
    assert (camera.width, camera.height, camera.matrix_px[1, 1]) == (640, 480, 510)
    assert camera.distortion.tolist() == [0.1, 0, 0, 0, 0] and camera.calibrated


@pytest.mark.parametrize(
    'text',
    ['', '- a', '{', CALIBRATION.replace('plumb_bob', 'x'), CALIBRATION.replace('500', '0'),
     CALIBRATION.replace('image_width: 640', '')],
)  # fmt: skip
def test_what_is_no_calibration_is_named(tmp_path, text):
    path = tmp_path / 'camera.yaml'
    path.write_text(text)
    with pytest.raises(UserError, match=r'camera\.yaml'):
        read_camera_file(path)


@pytest.mark.parametrize(
    ('words', 'left'),
    [
        ('run', 'run'),
        ('run --ros-args -p a:=1', 'run'),
        ('camera x --ros-args -r image:=/i -- --loop', 'camera x --loop'),
    ],
)
def test_ros_arguments_are_left_to_the_runtime(words, left):
    assert without_ros_args(words.split()) == left.split()


def test_a_bad_ros_argument_is_one_line():
    done = subprocess.run(
        [sys.executable, '-m', 'handos_ros.cli', 'run', '--ros-args', '-r', 'nonsense'],
        env={**os.environ, 'HANDOS_RUNTIME': 'embedded'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and 'from:=to' in done.stderr
    assert 'Traceback' not in done.stderr
