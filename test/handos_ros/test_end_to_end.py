"""Camera, node and recorder as three processes that know each other only by DDS."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

HERE = Path(__file__).resolve().parent
PATIENCE_S = 60.0


class Processes:
    """Starts programs of this folder and of the command line; stops what is left at the end."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []
        domain = 100 + os.getpid() % 100  # not the one of the tests in this process
        self.environment = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'OMP_NUM_THREADS': '1'}

    def start(self, *command: str) -> 'subprocess.Popen[str]':
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        self.running.append(process)
        return process

    def node(self, service_s: float, *parameters: str) -> 'subprocess.Popen[str]':
        arguments = [word for rule in parameters for word in ('-p', rule)]
        return self.start(
            str(HERE / 'run_node.py'),
            str(service_s),
            *(['--ros-args', *arguments] if arguments else []),
        )

    def camera(self, source: Path, *options: str) -> 'subprocess.Popen[str]':
        return self.start('-m', 'handos_ros.cli', 'camera', str(source), '--wait', *options)

    def interrupt(self, process: 'subprocess.Popen[str]') -> tuple[str, str]:
        """Send SIGINT, and what it printed; it must end by itself."""
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, printed[1]
        return printed

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture
def processes() -> Iterator[Processes]:
    started = Processes()
    yield started
    started.close()


@pytest.fixture
def recorder(processes):
    process = processes.start(str(HERE / 'run_recorder.py'))
    assert process.stdout.readline() == 'ready\n'
    return process


def finish(processes, camera, node, recorder) -> tuple[int, dict]:
    """Wait for the camera's end, stop the others; frames sent and the recorder's report."""
    out, err = camera.communicate(timeout=PATIENCE_S)
    assert camera.returncode == 0, err
    time.sleep(2.5)  # lost hands are said after one second, diagnostics twice a second
    _, node_log = processes.interrupt(node)
    assert 'Traceback' not in node_log
    report, _ = processes.interrupt(recorder)
    return int(out.split()[0]), json.loads(report.splitlines()[-1])


def check(sent: int, report: dict) -> None:
    counts = report['counts']
    received, processed = int(counts['frames received']), int(counts['frames processed'])
    lost, dropped = int(counts['frames lost on the way']), int(counts['frames dropped'])
    assert received + lost == sent
    assert processed + dropped == received
    *hands, last = report['hands']
    assert len(hands) == processed
    assert {entry['frame'] for entry in hands} == {'camera_optical'}
    assert all(entry['vertices'] == [2334, 2334] for entry in hands)
    stamps = [tuple(entry['stamp']) for entry in hands]
    assert stamps == sorted(set(stamps))  # the images' own, each once
    assert last['states'] == [2, 2] and tuple(last['stamp']) == stamps[-1]  # lost hands are said
    assert report['topologies'] == [1538 * 3]


def test_a_real_video_is_accounted_for_frame_by_frame(processes, recorder, shared_data):
    video = shared_data.joinpath(
        'mediapipe-samples/examples/hand_landmarker/android/app/src/androidTest/assets',
        'test_video.mp4',
    )
    # The default depth of 1 lets DDS replace an image unseen; deeper, the node counts them all.
    node = processes.node(0.002, 'qos_overrides./image.subscription.depth:=50')
    camera = processes.camera(video)
    sent, report = finish(processes, camera, node, recorder)
    assert sent == 202
    check(sent, report)


def test_an_overloaded_node_counts_what_it_drops(processes, recorder, tmp_path):
    for index in range(40):
        picture = np.full((240, 320, 3), index * 6, np.uint8)
        cv2.imwrite(str(tmp_path / f'{index:03d}.png'), picture)
    node = processes.node(0.1, 'qos_overrides./image.subscription.depth:=50')
    camera = processes.camera(tmp_path, '--rate', '40')
    sent, report = finish(processes, camera, node, recorder)
    assert sent == 40
    check(sent, report)
    assert int(report['counts']['dropped: a newer image came']) >= 20


def test_a_node_that_is_interrupted_while_it_works_ends_cleanly(processes):
    node = processes.node(0.0)
    assert any('fake runs on nothing' in line for line in node.stderr)  # reads up to it
    processes.interrupt(node)


def test_the_node_talks_to_nobody_but_dds(processes):
    node = processes.node(0.0)
    assert any('fake runs on nothing' in line for line in node.stderr)  # reads up to it
    connections = psutil.Process(node.pid).net_connections(kind='inet')
    assert connections and all(c.type == socket.SOCK_DGRAM for c in connections)  # no TCP at all
    domain = int(processes.environment['ROS_DOMAIN_ID'])
    assert all(not c.raddr for c in connections)
    discovery = 7400 + 250 * domain  # RTPS's port numbers
    assert any(discovery <= c.laddr.port < discovery + 250 for c in connections)
    processes.interrupt(node)


@pytest.mark.parametrize(
    ('rule', 'words'),
    [
        ('score_threshold:=7.0', 'score_threshold'),
        ('max_hands:=many', 'max_hands'),
        ('backend:=abacus', 'backend must be one of'),
    ],
)
def test_a_bad_parameter_is_one_line_for_the_user(processes, rule, words):
    node = processes.start('-m', 'handos_ros.cli', 'run', '--ros-args', '-p', rule)
    _, log = node.communicate(timeout=PATIENCE_S)
    assert node.returncode == 2 and words in log.splitlines()[-1] and 'Traceback' not in log


def test_missing_weights_are_one_line_for_the_user(processes):
    arguments = ('run', '--ros-args', '-p', 'model:=/nowhere')
    node = processes.start('-m', 'handos_ros.cli', *arguments)
    _, log = node.communicate(timeout=PATIENCE_S)
    assert node.returncode == 2 and '/nowhere' in log.splitlines()[-1]


def test_echo_prints_a_line_a_frame(processes, tmp_path):
    cv2.imwrite(str(tmp_path / '0.png'), np.zeros((48, 64, 3), np.uint8))
    echo = processes.start('-m', 'handos_ros.cli', 'echo', '--count', '3')
    node = processes.node(0.0)
    processes.camera(tmp_path, '--loop', '--rate', '10')
    out, _ = echo.communicate(timeout=PATIENCE_S)
    lines = out.splitlines()
    assert len(lines) == 3 and 'right #0 0.80' in lines[0] and 'left #1' in lines[0]
    processes.interrupt(node)
