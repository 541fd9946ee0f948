"""`ros2 launch` as it is typed: what it lists, and what it says of a camera that is not there."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess

import pytest

if shutil.which('ros2') is None or importlib.util.find_spec('handos') is None:
    pytest.skip(
        'needs a sourced ROS 2 with this package built in a workspace', allow_module_level=True
    )

PATIENCE_S = 60.0


def ros2_launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ['ros2', 'launch', 'handos', 'handos.launch.py', *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_every_argument_is_listed_with_its_description():
    listed = ros2_launch('--show-args').stdout
    for argument in ('camera', 'device', 'params_file', 'use_depth', 'respawn', 'rviz'):
        assert f"'{argument}':" in listed
    assert "valid choices are: ['none', 'usb', 'bag', 'realsense', 'oak']" in listed.lower()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('camera:=realsense',), 'sudo apt install ros-'),
        (('camera:=oak',), 'depthai-ros-driver'),
        (('camera:=bag',), 'give its folder as bag:=FOLDER'),
        (('camera:=kinect',), 'is not valid'),
    ],
)
def test_a_camera_that_cannot_be_started_is_explained(arguments, words):
    package = {'camera:=realsense': 'realsense2_camera', 'camera:=oak': 'depthai_ros_driver'}
    name = package.get(arguments[0])
    if name is not None and importlib.util.find_spec('ament_index_python'):
        from ament_index_python.packages import get_packages_with_prefixes

        if name in get_packages_with_prefixes():
            pytest.skip(f'{name} is installed: nothing to explain')
    done = ros2_launch(*arguments)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
