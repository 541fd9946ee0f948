"""The documentation against the code: tables, links, and files to copy."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from handos_ros.cli import COMMANDS
from handos_ros.node.hand_node import IMAGE_TYPES
from handos_ros.node.outputs import TOPICS, TOPOLOGY
from handos_ros.node.parameters import PARAMETERS, markdown_table

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
PAGES = sorted([*DOCS.glob('*.md'), ROOT / 'QUALITY_DECLARATION.md'])


def text(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', text(name), re.S)


def test_the_parameter_table_is_that_of_the_code():
    assert markdown_table() in text('parameters.md'), (
        'write it again: python -c "from handos_ros.node.parameters import markdown_table; '
        'print(markdown_table())"'
    )


def test_every_topic_is_documented_with_its_type():
    rows = set(re.findall(r'^\| `([^`]+)` \| `([^`]+)` \|', text('topics.md'), re.M))
    outputs = {(topic, type_name) for topic, type_name, _ in TOPICS.values()}
    others = {
        ('camera_info', 'sensor_msgs/msg/CameraInfo'),
        ('depth', 'sensor_msgs/msg/Image'),
        ('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray'),
    }
    assert rows == outputs | {TOPOLOGY} | set(IMAGE_TYPES.values()) | others


def test_depths_of_the_output_queues_are_documented():
    for topic, _, depth in TOPICS.values():
        assert re.search(rf'^\| `{topic}` .* depth {depth} \|', text('topics.md'), re.M), topic


def test_every_source_of_scale_is_documented():
    names = re.findall(r'^uint8 (SCALE_\w+)', (ROOT / 'msg/HandMesh.msg').read_text(), re.M)
    assert len(names) == 4 and set(names) == set(
        re.findall(r'^\| `(SCALE_\w+)`', text('calibration.md'), re.M)
    )


def test_launch_arguments_in_the_documentation_exist():
    source = (ROOT / 'launch/handos.launch.py').read_text()
    arguments = set(re.findall(r"^    '(\w+)': \(", source, re.M))
    known = arguments | {spec.name for spec in PARAMETERS} | {'use_sim_time'}
    for page in PAGES:
        used = set(re.findall(r'\b([a-z_]+):=', page.read_text())) - {'image', '__ns', 'camera'}
        assert used <= known, (page.name, used - known)


def test_commands_in_the_documentation_exist():
    for page in PAGES:
        lines = re.findall(r'(?:^    |`|run handos )handos ([a-z-]+)', page.read_text(), re.M)
        assert set(lines) <= COMMANDS.keys(), (page.name, set(lines) - COMMANDS.keys())


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r'\]\(([^)#]+)\)', page.read_text()):
            if not target.startswith('http'):
                assert (page.parent / target).exists(), (page.name, target)


def test_files_named_in_the_documentation_exist():
    for page in PAGES:
        for path in re.findall(r'`((?:config|examples|launch|msg)/[\w./]+)`', page.read_text()):
            assert (ROOT / path).is_file(), (page.name, path)


def test_dds_profiles_can_be_parsed_and_enlarge_the_buffers():
    cyclone, fast = (ET.fromstring(block.encode()) for block in blocks('tuning.md', 'xml'))
    named = {element.tag.split('}')[1]: element for element in cyclone.iter()}
    assert named['SocketReceiveBufferSize'].get('min') == '4MB'
    assert named['MaxMessageSize'].text == '65500B' and named['FragmentSize'].text == '64000B'
    elements = [(element.tag.split('}')[1], element.text) for element in fast.iter()]
    assert ('receiveBufferSize', '4194304') in elements
    defined = fast.findall('.//{*}transport_descriptor/{*}transport_id')
    used = fast.findall('.//{*}userTransports/{*}transport_id')
    assert {element.text for element in defined} == {element.text for element in used}


def test_the_qos_override_is_a_parameter_file():
    (block,) = blocks('tuning.md', 'yaml')
    overrides = yaml.safe_load(block)['/**']['ros__parameters']['qos_overrides']
    assert overrides['/image']['subscription']['reliability'] == 'reliable'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page):
    for table in re.findall(r'(?:^\|.*\n)+', page.read_text(), re.M):
        widths = {len(re.findall(r'(?<!\\)\|', line)) for line in table.splitlines()}
        assert len(widths) == 1, table.splitlines()[0]
