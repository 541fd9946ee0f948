"""Processes of a running graph that end, hang or starve: said, survived, and soon over.

Camera, node and listener are processes that know each other by DDS alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from watched import PATIENCE_S, PROMISED_S, Watched

from handos_ros import runtime

if runtime.chosen_runtime() != 'embedded':
    pytest.skip('faults are put into the embedded runtime', allow_module_level=True)

TINY_BUFFERS = (
    '<CycloneDDS><Domain><Internal><SocketReceiveBufferSize min="default" max="16kB"/></Internal>'
    '</Domain></CycloneDDS>'
)
TOOL = """
import time
from handos_ros import runtime as ros
ros.init(args=[])
node = ros.Node('tool')
image, hands = 'sensor_msgs/msg/Image', 'handos/msg/HandMeshArray'
for topic, name in (('/image', image), ('/handos/hands', hands)):
    node.create_subscription(ros.message_type(name), topic, print, ros.QoSProfile(depth=5))
print('there', flush=True)
time.sleep(100)
"""


@pytest.fixture
def alone(ros: Any) -> Iterator[Watched]:
    """A node and a camera for one test."""
    made = Watched(ros)
    yield made
    made.close()


@pytest.mark.fault(
    'camera', 'unplugged (kill -9), and another one plugged in', 'said; hands again'
)
def test_a_camera_that_is_unplugged(alone: Watched) -> None:
    assert alone.hears()
    alone.camera.kill()
    assert alone.says('image', 'stale')
    alone.camera = alone.start_camera()
    assert alone.hears()


@pytest.mark.fault('camera', 'stuck for two seconds (SIGSTOP)', 'said; hands again')
def test_a_camera_that_is_stuck(alone: Watched) -> None:
    assert alone.hears()
    alone.camera.send_signal(signal.SIGSTOP)
    assert alone.says('image', 'stale')
    alone.camera.send_signal(signal.SIGCONT)
    assert alone.hears(timeout_s=PROMISED_S)


@pytest.mark.fault('camera', 'two of them on one topic, a second apart', 'said, and how many')
def test_two_cameras_on_one_topic(alone: Watched) -> None:
    assert alone.hears()
    first, alone.camera = alone.camera, alone.start_camera()
    alone.tell_camera(clock_off_s=-1.0)
    assert alone.says('image', 'two cameras publish here', PATIENCE_S)
    first.kill()
    assert alone.hears()


@pytest.mark.long
@pytest.mark.fault('network', 'tools that come and are killed, ten times', 'hands go on')
def test_tools_that_come_and_are_killed(alone: Watched) -> None:
    assert alone.hears()
    for _ in range(10):
        tool = subprocess.Popen([sys.executable, '-c', TOOL], stdout=subprocess.PIPE)
        assert tool.stdout is not None and tool.stdout.readline() == b'there\n'
        assert alone.hears(timeout_s=PROMISED_S)
        tool.kill()
        tool.wait()
    assert alone.hears(100)


@pytest.mark.fault('network', 'receive buffers of 16 kB', 'hands go on')
def test_tiny_buffers(ros: Any) -> None:
    watched = Watched(ros, dds=TINY_BUFFERS)
    try:
        assert watched.hears(30)
    finally:
        watched.close()


@pytest.mark.fault('network', 'the node joins late', 'hands at once')
def test_a_late_joiner(alone: Watched) -> None:
    alone.node.kill()
    alone.spin_for(1.0)
    alone.node = alone.start_node()
    assert alone.hears()


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
@pytest.mark.fault('process', 'the node gets {name}', 'ends with code 0; the next one serves')
def test_a_node_that_is_told_to_end(alone: Watched, name: str) -> None:
    assert alone.hears()
    alone.node.send_signal(signal.Signals[name])
    assert alone.node.wait(PATIENCE_S) == 0
    alone.node = alone.start_node()
    assert alone.hears()


@pytest.mark.fault('process', 'the node is killed (SIGKILL)', 'the next one serves')
def test_a_node_that_is_killed(alone: Watched) -> None:
    assert alone.hears()
    alone.node.kill()
    alone.node.wait()
    alone.node = alone.start_node()
    assert alone.hears()


@pytest.mark.fault('process', 'the node is stopped for three seconds (SIGSTOP)', 'hands again')
def test_a_node_that_is_stopped(alone: Watched) -> None:
    assert alone.hears()
    alone.node.send_signal(signal.SIGSTOP)
    alone.spin_for(3.0)
    alone.node.send_signal(signal.SIGCONT)
    began_s = time.time()
    assert alone.hears(timeout_s=PROMISED_S)
    assert alone.stamps_s[-1] > began_s - 0.5  # new images, no queue of old ones


@pytest.mark.fault('process', 'everything on one core', 'hands go on')
def test_everything_on_one_core(alone: Watched) -> None:
    assert alone.hears()
    core = {min(os.sched_getaffinity(0))}
    for process in (alone.node, alone.camera):
        for thread in psutil.Process(process.pid).threads():
            os.sched_setaffinity(thread.id, core)
    assert alone.hears(40, timeout_s=2 * PROMISED_S)
