"""What colcon, launch, RViz and Foxglove read: checked without any of them.

Neither ROS 2's build tools nor launch come from PyPI: strict stand-ins take their place here.
"""

import ast
import configparser
import json
import os
import re
import runpy
import subprocess
import sys
import types
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from handos_ros.node.hand_node import IMAGE_TYPES
from handos_ros.node.outputs import TOPICS, TOPOLOGY
from handos_ros.node.parameters import PARAMETERS, find_problems

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_XML = ET.parse(ROOT / 'package.xml').getroot()
CMAKE = re.sub(r'#.*', '', (ROOT / 'CMakeLists.txt').read_text())
OUTPUTS = {topic.replace('~', '/handos') for topic, *_ in TOPICS.values()} | {
    TOPOLOGY[0].replace('~', '/handos'),
    '/diagnostics',
}
# Import name -> rosdep key; what rosdep does not know comes from pip, as the quick start says.
SYSTEM_PACKAGES = {
    'cv2': 'python3-opencv',
    'numpy': 'python3-numpy',
    'rich': 'python3-rich',
    'typer': 'python3-typer',
    'yaml': 'python3-yaml',
}
PIP_ONLY = {'safetensors'}
# Imported only where they are installed, or by a command that asks for them.
OPTIONAL = {'cyclonedds', 'rosbags', 'backports', 'huggingface_hub', 'transformers', 'torch'} | {
    *('onnx', 'onnxruntime', 'onnxscript', 'openvino', 'tensorrt', 'viser', 'websockets'),
}


def depends(*kinds: str) -> set[str]:
    return {element.text for kind in kinds for element in PACKAGE_XML.iter(kind)}


def python_files() -> list[Path]:
    return [
        path for name in ('handos_ros', 'handos_model') for path in (ROOT / name).rglob('*.py')
    ]


def imported_packages() -> set[str]:
    names: set[str] = set()
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module.split('.')[0])
    return names - set(sys.stdlib_module_names) - {'handos_ros', 'handos_model', '__future__'}


def message_packages() -> set[str]:
    """Packages of every message type that the code outside the embedded runtime names."""
    names: set[str] = set()
    for path in python_files():
        if 'embedded' not in path.parts:
            names |= set(re.findall(r"'([a-z0-9_]+)/msg/[A-Z]", path.read_text()))
    return names - {'package', 'handos'}


def test_package_xml_names_everything_that_is_imported():
    run = depends('depend', 'exec_depend')
    imported = imported_packages()
    ros = {'rclpy'} | message_packages() | {'launch', 'launch_ros', 'rosidl_default_runtime'}
    assert ros <= run
    unknown = imported - SYSTEM_PACKAGES.keys() - PIP_ONLY - OPTIONAL - {'rclpy', 'compression'}
    assert not unknown, 'say in this test and in package.xml where these come from'
    system = {SYSTEM_PACKAGES[name] for name in imported & SYSTEM_PACKAGES.keys()}
    assert {key for key in run if key.startswith('python3-')} == system


def test_package_xml_is_a_format_3_package_with_messages():
    assert PACKAGE_XML.tag == 'package' and PACKAGE_XML.get('format') == '3'
    assert PACKAGE_XML.findtext('name') == 'handos'
    assert PACKAGE_XML.findtext('export/build_type') == 'ament_cmake'
    assert PACKAGE_XML.findtext('member_of_group') == 'rosidl_interface_packages'
    assert {'ament_cmake', 'ament_cmake_python', 'rosidl_default_generators'} <= depends(
        'buildtool_depend'
    )
    project = (ROOT / 'pyproject.toml').read_text()
    assert f'version = "{PACKAGE_XML.findtext("version")}"' in project
    assert f'text = "{PACKAGE_XML.findtext("license")}"' in project
    order = [child.tag for child in PACKAGE_XML]
    assert order.index('license') < order.index('buildtool_depend') < order.index('depend')


def test_cmake_lists_every_message_and_its_packages():
    assert set(re.findall(r'msg/\w+\.msg', CMAKE)) == {
        f'msg/{path.name}' for path in (ROOT / 'msg').iterdir()
    }
    texts = [path.read_text() for path in (ROOT / 'msg').glob('*.msg')]
    used = {name for text in texts for name in re.findall(r'^(\w+)/\w+(?:\[\])? \w+', text, re.M)}
    listed = re.search(r'DEPENDENCIES ([\w ]+)\)', CMAKE)
    assert listed and used == set(listed[1].split()) == depends('depend')
    for name in used:
        assert f'find_package({name} REQUIRED)' in CMAKE


def test_cmake_installs_packages_folders_and_the_command():
    installed = re.findall(r'ament_python_install_package\((\w+)([^)]*)\)', CMAKE)
    assert {name for name, _ in installed} == {'handos_ros', 'handos_model'}
    assert 'lib/${PROJECT_NAME}' in dict(installed)['handos_ros']
    folders = re.search(r'install\(DIRECTORY ([\w ]+) DESTINATION share', CMAKE)
    assert folders and set(folders[1].split()) == {'launch', 'config'}
    assert CMAKE.count('(') == CMAKE.count(')') and CMAKE.rstrip().endswith('ament_package()')
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    assert 'handos = handos_ros.cli:main' in setup['options.entry_points']['console_scripts']
    for suite in re.findall(r'foreach\(suite ([\w/\s]+)\)', CMAKE)[0].split():
        assert (ROOT / f'test/handos_ros/{suite}.py').is_file()


def test_ros2_run_handos_node_is_the_node():
    assert 'install(PROGRAMS scripts/node DESTINATION lib/${PROJECT_NAME})' in CMAKE
    script = ROOT / 'scripts/node'
    assert script.stat().st_mode & 0o111
    rule = ['--ros-args', '-p', 'score_threshold:=7.0']
    command = [sys.executable, str(script), *rule]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and 'score_threshold' in done.stderr


def test_the_parameter_file_is_the_table():
    content = yaml.safe_load((ROOT / 'config/handos.yaml').read_text())
    values = content['/**']['ros__parameters']
    assert values == {spec.name: spec.default for spec in PARAMETERS}
    assert not find_problems(values)
    assert {name: type(value) for name, value in values.items()} == {
        spec.name: type(spec.default) for spec in PARAMETERS
    }


@pytest.mark.parametrize('name', ['teleoperation', 'network', 'depth', 'recording'])
def test_a_set_up_changes_parameters_that_exist(name):
    content = yaml.safe_load((ROOT / f'config/{name}.yaml').read_text())
    values = content['/**']['ros__parameters']
    for endpoint in values.pop('qos_overrides', {}).values():
        assert endpoint['subscription'].keys() <= {'reliability', 'depth'}
    values.pop('use_sim_time', None)
    defaults = {spec.name: spec.default for spec in PARAMETERS}
    assert not find_problems(values)
    assert all(defaults[key] != value for key, value in values.items())
    assert f'`{name}.yaml`' in (ROOT / 'docs/parameters.md').read_text()


def test_bloom_finds_the_version_in_its_changelog():
    title, *sections = re.split(r'\n(.+)\n-+\n', (ROOT / 'CHANGELOG.rst').read_text())
    assert 'Changelog for package handos' in title
    newest = next(heading for heading in sections[::2] if heading != 'Forthcoming')
    version, date = re.fullmatch(r'(\S+) \((\d{4}-\d\d-\d\d)\)', newest).groups()
    assert version == PACKAGE_XML.findtext('version') and date
    assert all(re.search(r'^\* \S', text, re.M) for text in sections[1::2])


def test_rviz_shows_topics_that_exist():
    content = yaml.safe_load((ROOT / 'config/handos.rviz').read_text())
    displays = content['Visualization Manager']['Displays']
    topics = {entry['Topic']['Value'] for entry in displays if 'Topic' in entry}
    assert topics == {'/handos/markers', '/handos/overlay'} and topics <= OUTPUTS
    assert all(entry['Class'].startswith('rviz_default_plugins/') for entry in displays)


def test_foxglove_shows_topics_that_exist():
    content = json.loads((ROOT / 'config/handos_foxglove.json').read_text())
    text = json.dumps(content['configById'])
    topics = set(re.findall(r'"(/[a-z_/]+)', text))
    assert {'/handos/markers', '/handos/overlay', '/diagnostics'} <= topics <= OUTPUTS
    placed = re.findall(r'"(?:first|second)": "([^"]+)"', json.dumps(content['layout']))
    assert sorted(placed) == sorted(content['configById'])


class Strict:
    """A stand-in that takes the real class's keywords and no others."""

    keywords: ClassVar[set[str]] = set()
    positional: ClassVar[int] = 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        assert len(args) <= self.positional and kwargs.keys() <= self.keywords, kwargs
        self.args, self.kwargs = args, kwargs


def stand_in(name: str, keywords: str = '', positional: int = 1) -> type[Strict]:
    return type(name, (Strict,), {'keywords': set(keywords.split()), 'positional': positional})


class LaunchConfiguration(Strict):
    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]


ACTION = 'condition'
STAND_INS = {
    'launch': {'LaunchDescription': stand_in('LaunchDescription')},
    'launch.actions': {
        'DeclareLaunchArgument': stand_in(
            'DeclareLaunchArgument', f'default_value description choices {ACTION}'
        ),
        'ExecuteProcess': stand_in(
            'ExecuteProcess', f'cmd name output shell cwd env respawn {ACTION}', 0
        ),
        'GroupAction': stand_in(
            'GroupAction', f'scoped forwarding launch_configurations {ACTION}'
        ),
        'IncludeLaunchDescription': stand_in(
            'IncludeLaunchDescription', f'launch_arguments {ACTION}'
        ),
        'OpaqueFunction': stand_in('OpaqueFunction', f'function args kwargs {ACTION}', 0),
    },
    'launch.launch_description_sources': {
        'PythonLaunchDescriptionSource': stand_in('PythonLaunchDescriptionSource')
    },
    'launch.substitutions': {
        'LaunchConfiguration': LaunchConfiguration,
        'PathJoinSubstitution': stand_in('PathJoinSubstitution'),
    },
    'launch_ros': {},
    'launch_ros.actions': {
        'Node': stand_in(
            'Node',
            'package executable name namespace parameters remappings arguments ros_arguments '
            f'exec_name output emulate_tty respawn respawn_delay env additional_env {ACTION}',
            0,
        )
    },
    'launch_ros.substitutions': {'FindPackageShare': stand_in('FindPackageShare')},
}


class PackageNotFoundError(KeyError):
    """As ament_index_python has it."""


INSTALLED: dict[str, Any] = {
    'PackageNotFoundError': PackageNotFoundError,
    'get_package_share_directory': lambda name: f'/opt/ros/jazzy/share/{name}',
}


@pytest.fixture
def launch_file(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    for name, members in {**STAND_INS, 'ament_index_python.packages': INSTALLED}.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(ROOT / 'launch/handos.launch.py'))


def start(launch_file, **values: str) -> list[Any]:
    (entities,) = launch_file['generate_launch_description']().args
    *declared, opaque = entities
    context = {entry.args[0]: entry.kwargs['default_value'] for entry in declared}
    assert values.keys() <= context.keys()
    return opaque.kwargs['function']({**context, **values})


def by_executable(actions: list[Any]) -> dict[str, Any]:
    return {
        action.kwargs['name']: action.kwargs for action in actions if 'executable' in action.kwargs
    }


def test_every_launch_argument_is_described(launch_file):
    *declared, _ = launch_file['generate_launch_description']().args[0]
    names = {entry.args[0] for entry in declared}
    assert names == launch_file['ARGUMENTS'].keys()
    needed = 'camera image camera_info depth model backend device rviz namespace params_file'
    assert set(needed.split()) <= names
    for entry in declared:
        assert len(entry.kwargs['description']) > 20
        assert entry.kwargs['default_value'] in entry.kwargs.get(
            'choices', [entry.kwargs['default_value']]
        )


@pytest.mark.parametrize('camera', ['none', 'usb', 'realsense', 'oak', 'bag'])
def test_each_camera_is_remapped_to_the_nodes_topics(launch_file, camera):
    actions = start(launch_file, camera=camera, bag='recording', namespace='left')
    node = by_executable(actions)['handos']
    topics = launch_file['CAMERAS'][camera]
    remapped = dict(node['remappings'])
    assert remapped['image'] == topics['image']
    assert remapped['image/compressed'] == topics['image'] + '/compressed'
    assert remapped.keys() == {*(name for name, _ in IMAGE_TYPES.values()), 'camera_info', 'depth'}
    assert node['namespace'] == 'left' and node['arguments'] == ['run']
    assert len(actions) == (1 if camera == 'none' else 2)
    assert ('use_sim_time' in node['parameters'][1]) == (camera == 'bag')


def test_a_driver_does_not_see_our_arguments(launch_file):
    group, _ = start(launch_file, camera='oak')
    assert group.kwargs == {'scoped': True, 'forwarding': False}


def test_arguments_that_are_not_given_leave_the_parameter_file_alone(launch_file):
    (node,) = start(launch_file)
    _, overrides = node.kwargs['parameters']
    assert overrides == {'autostart': True}
    (node,) = start(
        launch_file,
        params_file='mine.yaml',
        model='base',
        backend='openvino',
        use_depth='true',
        autostart='false',
    )
    file, overrides = node.kwargs['parameters']
    assert file == 'mine.yaml'
    assert not find_problems(overrides) and overrides == {
        'model': 'base',
        'backend': 'openvino',
        'use_depth': True,
        'autostart': False,
    }


def test_topics_that_are_given_replace_the_cameras_own(launch_file):
    actions = start(launch_file, camera='usb', image='/front/image', device='/dev/video2')
    nodes = by_executable(actions)
    assert dict(nodes['handos']['remappings'])['image'] == '/front/image'
    assert dict(nodes['camera']['remappings'])['image'] == '/front/image'
    assert nodes['camera']['arguments'][:2] == ['camera', '/dev/video2']


def test_rviz_looks_at_the_namespace_of_the_node(launch_file):
    nodes = by_executable(start(launch_file, rviz='true', namespace='left', camera='realsense'))
    remapped = dict(nodes['rviz2']['remappings'])
    assert remapped['/handos/markers'] == '/left/handos/markers'
    assert remapped.keys() <= OUTPUTS
    assert nodes['rviz2']['arguments'][-1] == 'camera_color_optical_frame'


@pytest.mark.parametrize(
    ('values', 'install'),
    [
        ({'camera': 'realsense'}, 'ros-jazzy-realsense2-camera'),
        ({'camera': 'oak'}, 'ros-jazzy-depthai-ros-driver'),
        ({'rviz': 'true'}, 'ros-jazzy-rviz2'),
    ],
)
def test_what_is_missing_is_named_with_its_package(launch_file, values, install):
    def missing(name):
        raise PackageNotFoundError(name)

    launch_file['require'].__globals__['get_package_share_directory'] = missing
    with pytest.raises(RuntimeError, match=f'sudo apt install {install},'):
        start(launch_file, **values)


def test_the_node_is_started_again_unless_told_otherwise(launch_file):
    for value in ('true', 'false'):
        node = by_executable(start(launch_file, respawn=value))['handos']
        assert node['respawn'] == (value == 'true') and node['respawn_delay'] <= 5.0


def test_a_recording_must_be_named(launch_file):
    with pytest.raises(RuntimeError, match='bag:='):
        start(launch_file, camera='bag')
