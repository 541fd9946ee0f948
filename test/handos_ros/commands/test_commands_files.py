"""`handos image`, `video`, `bench`, `doctor` and `export`, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from handos_model.backends.parity import made_up_images
from handos_model.types import Camera
from handos_ros.cli import main
from handos_ros.commands.video import VideoSource
from handos_ros.images.calibration import calibration_doubts

CALIBRATION = {
    'image_width': 160,
    'image_height': 120,
    'camera_matrix': {'rows': 3, 'cols': 3, 'data': [150, 0, 80, 0, 150, 60, 0, 0, 1]},
    'distortion_model': 'plumb_bob',
    'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [-0.05, 0, 0, 0, 0]},
}


def run(*words: object) -> int:
    """The exit code of `handos WORDS`."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    code = stop.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / 'hand.png'
    cv2.imwrite(str(path), made_up_images((120, 160), 1)[0])
    return path


def test_image_writes_the_format_and_goes_on_after_bad_files(
    picture: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'\xff\xd8 no picture')
    calibration = tmp_path / 'camera.yaml'
    calibration.write_text(yaml.safe_dump(CALIBRATION))
    out, overlay = tmp_path / 'out' / 'hands.json', tmp_path / 'drawn'
    code = run(
        'image', broken, picture, tmp_path / 'absent.png', '--weights', tiny_weights,
        '--json', out, '--overlay', overlay, '--camera-info', calibration, '--score', 0,
        '--max-hands', 2, '--vertices',
    )  # fmt: skip
    assert code == 1
    entries = json.loads(out.read_text())
    assert [Path(entry['file']).name for entry in entries] == [
        'broken.jpg',
        'hand.png',
        'absent.png',
    ]
    assert 'no picture' in entries[0]['error'] and 'cannot be read' in entries[2]['error']
    entry = entries[1]
    assert (entry['width'], entry['height']) == (160, 120)
    assert 1 <= len(entry['hands']) <= 2
    hand = entry['hands'][0]
    assert set(hand) == {
        'id', 'side', 'side_probability', 'score', 'box_xyxy_px', 'joints_px', 'joints_m',
        'translation_m', 'scale_source', 'vertices_m',
    }  # fmt: skip
    assert hand['id'] == 0 and hand['side'] in ('left', 'right')
    shapes = {name: np.shape(hand[name]) for name in hand if name.endswith(('_m', '_px'))}
    assert shapes == {
        'box_xyxy_px': (4,), 'joints_px': (21, 3), 'joints_m': (21, 3), 'translation_m': (3,),
        'vertices_m': (778, 3),
    }  # fmt: skip
    np.testing.assert_allclose(hand['joints_m'][9], hand['translation_m'], atol=1e-4)
    drawn = cv2.imread(str(overlay / 'hand.png'))
    assert drawn is not None and drawn.shape == (120, 160, 3)
    assert 'broken.jpg: ' in capsys.readouterr().out


def test_image_prints_json_alone_on_request(
    picture: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run('image', picture, '--weights', tiny_weights, '--json', '-', '--score', 1) == 0
    assert json.loads(capsys.readouterr().out)[0]['hands'] == []


def test_image_refuses_the_calibration_of_another_size(
    picture: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    calibration = tmp_path / 'camera.yaml'
    calibration.write_text(yaml.safe_dump({**CALIBRATION, 'image_width': 640}))
    out = tmp_path / 'hands.json'
    words = ('--weights', tiny_weights, '--camera-info', calibration, '--json', out)
    assert run('image', picture, *words) == 1
    assert 'calibration of this resolution' in json.loads(out.read_text())[0]['error']


def test_unknown_weights_are_one_line(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run('image', picture, '--weights', tmp_path / 'nothing') == 2
    assert capsys.readouterr().err.startswith('handos: no weights at')


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / 'film.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 20.0, (160, 120))
    picture = made_up_images((120, 160), 1)[0]
    for shift in range(6):
        writer.write(np.roll(picture, 2 * shift, axis=1))
    writer.release()
    return path


def test_video_follows_hands_and_draws_them(
    film: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, drawn = tmp_path / 'hands.jsonl', tmp_path / 'drawn.mp4'
    words = ('--weights', tiny_weights, '--score', 0, '--max-hands', 1, '--max-frames', 5)
    assert run('video', film, '--json', out, '--overlay', drawn, *words) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line['frame'] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[3]['time_s'] == pytest.approx(0.15)
    assert all(line['hands'] for line in lines)
    with VideoSource(drawn) as source:
        assert (source.width, source.height) == (160, 120)
        assert len(list(source.frames(0))) == 5
    assert '5 frames, hands in 5' in capsys.readouterr().out


@pytest.mark.parametrize('content', [None, b'not a film'])
def test_what_is_no_video_is_said(
    content: bytes | None, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'film.mp4'
    if content is not None:
        path.write_bytes(content)
    assert run('video', path, '--weights', tiny_weights) == 2
    assert 'film.mp4 is n' in capsys.readouterr().err


def test_bench_prints_stages_hardware_and_versions(
    tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ('--weights', tiny_weights, '--frames', 3, '--hands', 2, '--size', '200x150')
    assert run('bench', *words, '--json') == 0
    result = json.loads(capsys.readouterr().out)
    assert result['hands'] == 2 and result['image_size'] == [200, 150]
    assert result['network_size'] == [128, 96]
    assert {'processor', 'cores', 'gpu', 'versions', 'reason'} <= set(result)
    stages = result['milliseconds']
    assert {'preprocess', 'detector', 'decoder', 'solve', 'track', 'not_network', 'total'} <= set(
        stages
    )
    assert 0 < stages['decoder']['p50'] <= stages['decoder']['p99'] <= stages['total']['p99']
    assert run('bench', *words) == 0
    assert 'preprocess' in capsys.readouterr().out


def test_bench_refuses_a_size_that_is_none(
    tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run('bench', '--weights', tiny_weights, '--size', 'large') == 2
    assert 'WIDTHxHEIGHT' in capsys.readouterr().err


def test_doctor_compares_the_backends_and_looks_at_the_calibration(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibration = tmp_path / 'camera.yaml'
    calibration.write_text(yaml.safe_dump(CALIBRATION))
    assert run('doctor', '--weights', tiny_weights, '--camera-info', calibration) == 0
    said = capsys.readouterr().out
    assert 'torch on CPU, fp32, the reference' in said
    assert 'onnxruntime on CPU, fp32, agrees' in said
    assert 'tensorrt: ' in said and 'all well' in said

    matrix = {'data': [1500, 0, 10, 0, 150, 60, 0, 0, 1]}
    calibration.write_text(yaml.safe_dump({**CALIBRATION, 'camera_matrix': matrix}))
    assert run('doctor', '--weights', tiny_weights, '--camera-info', calibration) == 1
    said = capsys.readouterr().out
    assert 'square pixels' in said and 'principal point' in said


def test_doctor_without_weights_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run('doctor', '--weights', 'no-such-weights') == 1
    assert 'no weights at' in capsys.readouterr().out


def test_calibrations_that_cannot_be() -> None:
    matrix = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])
    assert calibration_doubts(Camera(640, 480, matrix)) == []
    narrow = calibration_doubts(Camera(640, 480, matrix * [[20, 1, 1], [1, 20, 1], [1, 1, 1]]))
    assert any('field of view' in doubt for doubt in narrow)
    folded = Camera(640, 480, matrix, np.array([-2.0, 0, 0, 0, 0]))
    assert any('no inverse' in doubt for doubt in calibration_doubts(folded))


def test_export_refuses_bad_requests_before_it_works(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out'
    assert run('export', tiny_weights, '--out', out, '--hands', 'two') == 2
    assert 'numbers such as 1,2,4' in capsys.readouterr().err
    assert run('export', tiny_weights, '--out', out, '--precision', 'int4') == 2
    assert 'int4' in capsys.readouterr().err
    assert not out.exists()
