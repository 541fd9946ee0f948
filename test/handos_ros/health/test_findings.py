"""`handos doctor --ros`: each usual mistake is found and its cure told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handos_ros.health.findings import Endpoint, Machine, Observed, Topic, find_mistakes
from handos_ros.health.observe import domains_of_ports, dropped_packets, sockets_of_ports

HERE = Path(__file__).resolve().parents[1]
IMAGE, INFO = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo'
OFFERED = Endpoint(IMAGE, reliable=True, latched=False)
HEALTHY = Observed(
    seconds=3.0,
    machine=Machine(environment={'ROS_DOMAIN_ID': '7'}, domains=frozenset({7})),
    image=Topic('/image', (OFFERED,), (), 90, (0.01,) * 90, frozenset({(640, 480)})),
    camera_info=Topic(
        '/camera_info', (replace(OFFERED, type_name=INFO),), (), 90, (), frozenset({(640, 480)})
    ),
    calibrated=True,
)


def image(**changes: Any) -> Observed:
    return replace(HEALTHY, image=replace(HEALTHY.image, **changes))


def info(**changes: Any) -> Observed:
    return replace(HEALTHY, camera_info=replace(HEALTHY.camera_info, **changes))


def machine(**changes: Any) -> Observed:
    return replace(HEALTHY, machine=replace(HEALTHY.machine, **changes))


ABSENT = {'publishers': (), 'heard': 0, 'ages_s': (), 'sizes_px': frozenset()}
OTHER = {'process 12 (rviz2)': {'ROS_DOMAIN_ID': '7', 'RMW_IMPLEMENTATION': 'rmw_zenoh_cpp'}}
WANTS_RELIABLE = Endpoint(IMAGE, reliable=True, latched=False)
WANTS_LATCHED = Endpoint(IMAGE, reliable=False, latched=True)
BEST_EFFORT = Endpoint(IMAGE, reliable=False, latched=False)
MISTAKES = {
    'domain no number': (machine(environment={'ROS_DOMAIN_ID': 'x'}), "is 'x'", '0 to 101'),
    'domain too large': (machine(environment={'ROS_DOMAIN_ID': '233'}), "is '233'", '0 to 101'),
    'domain unsafe': (machine(environment={'ROS_DOMAIN_ID': '150'}), 'its ports', '0 to 101'),
    'another domain': (
        replace(image(**ABSENT), machine=replace(HEALTHY.machine, domains=frozenset({7, 3}))),
        'is in domain 3',
        'ROS_DOMAIN_ID=3 here',
    ),
    'another middleware': (machine(others=OTHER), 'rmw_zenoh_cpp', 'the same RMW_IMPLEM'),
    'small buffers': (machine(receive_buffer_bytes=212992), '208 KiB', 'net.core.rmem_max'),
    'packets dropped': (machine(packets_dropped=5), '5 packets', 'buffers'),
    'no image': (image(**ABSENT), 'nobody publishes /image', '-r image:='),
    'compressed': (
        image(publishers=(replace(OFFERED, type_name='sensor_msgs/msg/CompressedImage'),)),
        'carries sensor_msgs/msg/CompressedImage',
        'image_transport:=compressed',
    ),
    'two cameras': (image(publishers=(OFFERED, OFFERED)), '2 publishers', 'all but one'),
    'silent camera': (image(heard=0, ages_s=()), 'nothing of it arrived in 3 s', 'streaming'),
    'no camera_info': (info(**ABSENT), 'nobody publishes /camera_info', 'remap camera_info'),
    'silent camera_info': (info(heard=0), 'nothing of it arrived', 'with every image'),
    'not calibrated': (replace(HEALTHY, calibrated=False), 'K is zero', 'calibration.md'),
    'another size': (
        info(sizes_px=frozenset({(1280, 720)})),
        'is for 1280x720, but images are 640x480',
        'calibrate at the size',
    ),
    'clock ahead': (image(ages_s=(-3.0,)), "the camera's clock is 3.0 s ahead", 'chrony'),
    'clock behind': (image(ages_s=(60.0,)), '60.0 s old', 'chrony'),
    'reliability': (
        image(publishers=(BEST_EFFORT,), subscriptions=(WANTS_RELIABLE,)),
        'wants reliable',
        'best_effort',
    ),
    'durability': (image(subscriptions=(WANTS_LATCHED,)), 'wants transient local', 'volatile'),
}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert find_mistakes(HEALTHY) == []
    unset = {'ROS_DOMAIN_ID': '', 'ROS_LOCALHOST_ONLY': '0'}
    alike = machine(environment={'ROS_DOMAIN_ID': '0'}, others={'process 1 (a)': unset})
    assert find_mistakes(replace(alike)) == []


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_found_with_its_cure(name: str) -> None:
    observed, what, cure = MISTAKES[name]
    first, *others = find_mistakes(observed)
    assert what in first.what and cure in first.cure
    assert len(others) == (name == 'another domain')  # which also means that there is no image


def test_domains_are_read_from_the_ports_in_use() -> None:
    row = '  12: 00000000:{:04X} 00000000:0000 07 00000000:00000000 00:00000000 0 0 0 {} 2 0 0'
    table = '\n'.join(
        ['head', row.format(7400, 11), row.format(7400 + 250 * 42 + 11, 12), row.format(53, 13)]
    )
    assert domains_of_ports(table) == {0, 42}
    assert sockets_of_ports(table) == {'socket:[11]', 'socket:[12]'}
    assert dropped_packets() >= 0


@pytest.fixture
def camera() -> Iterator[Callable[[dict[str, str]], None]]:
    """Starts a camera in an environment, and waits until it is in the graph."""
    started = []

    def start(environment: dict[str, str]) -> None:
        command = [sys.executable, str(HERE / 'run_camera.py'), '64', '48', '20']
        started.append(subprocess.Popen(command, env=environment))
        time.sleep(2.0)

    yield start
    for process in started:
        process.kill()
        process.wait()


def doctor(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, '-m', 'handos_ros.cli', 'doctor', '--ros', *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == ('to mend' in done.stdout), done.stderr
    return done.stdout


def test_real_graphs_are_told_apart(camera: Callable[[dict[str, str]], None]) -> None:
    ours = {**os.environ, 'ROS_DOMAIN_ID': str(1 + (os.getpid() + 50) % 99)}
    theirs = {**ours, 'ROS_DOMAIN_ID': str(1 + (os.getpid() + 51) % 99)}
    camera(theirs)
    said = doctor(ours, '--listen', '1')
    assert 'nobody publishes /image' in said and theirs['ROS_DOMAIN_ID'] in said
    assert f'has ROS_DOMAIN_ID={theirs["ROS_DOMAIN_ID"]}' in said
    said = doctor(theirs, '--listen', '3')
    assert 'nobody' not in said and 'Hz' in said and 'camera_info is' not in said
    said = doctor(theirs, '--listen', '1', '--ros-args', '-r', 'image:=/front/image')
    assert 'nobody publishes /front/image' in said
