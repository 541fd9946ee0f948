"""What runs it for good: unit, images and security policy against the package."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from handos_ros.node.hand_node import IMAGE_TYPES
from handos_ros.node.outputs import TOPICS, TOPOLOGY

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / 'deploy'


def allowed(kind: str, action: str) -> set[str]:
    policy = ET.parse(DEPLOY / 'sros2_policy.xml').getroot()
    return {
        element.text or ''
        for group in policy.iter(f'{kind}s')
        if group.get(action) == 'ALLOW'
        for element in group.iter(kind)
    }


def test_the_policy_allows_what_the_node_does_and_no_more() -> None:
    of_every_node = {'/rosout', '/parameter_events', '~/transition_event', '/diagnostics'}
    outputs = {topic for topic, *_ in TOPICS.values()} | {TOPOLOGY[0]}
    assert allowed('topic', 'publish') == outputs | of_every_node
    inputs = {topic for topic, _ in IMAGE_TYPES.values()} | {'camera_info', 'depth'}
    assert allowed('topic', 'subscribe') == inputs | {'/clock', '/parameter_events'}
    assert {'~/change_state', '~/set_parameters'} <= allowed('service', 'reply')
    assert not allowed('service', 'request')


def test_the_unit_restarts_the_node_and_stops_it_as_ros_expects() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / 'handos.service')
    service = unit['Service']
    assert service['Restart'] == 'always' and float(service['RestartSec']) <= 5
    assert service['KillSignal'] == 'SIGINT'
    assert 'ros2 launch handos handos.launch.py' in service['ExecStart']


def test_systemd_takes_the_unit() -> None:
    program = shutil.which('systemd-analyze')
    if program is None:
        pytest.skip('no systemd-analyze: install systemd to have the unit checked')
    command = [program, 'verify', str(DEPLOY / 'handos.service')]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name', ['Dockerfile', 'Dockerfile.jetson'])
def test_an_image_installs_what_pip_alone_has_and_starts_the_launch_file(name: str) -> None:
    text = (DEPLOY / name).read_text()
    (installed,) = re.findall(r'pip install .*constraints\.txt (.*)', text)
    quick_start = (ROOT / 'docs/quickstart_ros2.md').read_text()
    (documented,) = re.findall(r'pip install --user (.*?) *#', quick_start)
    wanted = {re.split('[>=]', word.strip("'"))[0] for word in documented.split()}
    assert set(installed.split()) == wanted
    assert 'colcon build --packages-select handos' in text
    assert 'ros2 launch handos handos.launch.py' in text.splitlines()[-1]


def test_the_tests_that_the_threat_model_names_exist() -> None:
    named = re.findall(r'`(test/[\w/]+\.py)`', (ROOT / 'SECURITY.md').read_text())
    assert len(named) > 8 and all((ROOT / path).is_file() for path in named)
