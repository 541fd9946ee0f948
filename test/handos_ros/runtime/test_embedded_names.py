"""ROS names, command-line arguments and parameters."""

import pytest

from handos_ros.runtime.embedded import arguments, names
from handos_ros.runtime.embedded.arguments import ArgumentError
from handos_ros.runtime.embedded.parameters import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    Parameter,
    ParameterNotDeclaredException,
    ParameterServer,
)
from handos_ros.runtime.embedded.wire import messages


@pytest.mark.parametrize(
    ('name', 'namespace', 'full'),
    [
        ('image', '/', '/image'),
        ('image', '/robot', '/robot/image'),
        ('a/b', '/robot/', '/robot/a/b'),
        ('/tf', '/robot', '/tf'),
        ('~/hands', '/robot', '/robot/handos/hands'),
        ('~', '/', '/handos'),
    ],
)
def test_names_are_expanded(name, namespace, full):
    assert names.expand(name, 'handos', namespace) == full


@pytest.mark.parametrize('name', ['', '/', 'a b', '1a', 'a//b', 'a/', 'a~', 'ä'])
def test_bad_names_are_refused(name):
    with pytest.raises(names.InvalidTopicName):
        names.expand(name, 'handos', '/')


def test_the_first_matching_remap_counts():
    rules = [('image', '/cam/image'), ('image', '/other'), ('~/hands', 'hands')]
    assert names.remap('image', 'handos', '/r', rules) == '/cam/image'
    assert names.remap('/r/image', 'handos', '/r', rules) == '/cam/image'
    assert names.remap('~/hands', 'handos', '/r', rules) == '/r/hands'
    assert names.remap('depth', 'handos', '/r', rules) == '/r/depth'


def test_arguments(tmp_path):
    path = tmp_path / 'p.yaml'
    path.write_text(
        '/**:\n  ros__parameters:\n    a: 1\n    nested: {b: 2.5}\n'
        '/left/handos:\n  ros__parameters: {a: 3}\n'
        'right:\n  handos:\n    ros__parameters: {a: 4}\n'
        'handos:\n  ros__parameters: {c: here}\n'
    )
    words = (
        'camera.mp4 --ros-args -r image:=/cam/image -r __ns:=/left -r __node:=hands '
        f'--params-file {path} -p a2:=true -p other:x:=[1, 2] --log-level debug '
        '--remap handos:depth:=/d --enable-rosout-logs -- --loop'
    ).replace('[1, 2]', '[1,2]')
    parsed = arguments.parse(words.split())
    assert parsed.rest == ['camera.mp4', '--loop']
    assert parsed.remaps == [('image', '/cam/image'), ('depth', '/d')]
    assert (parsed.namespace, parsed.node_name, parsed.log_level) == ('/left', 'hands', 'debug')
    assert parsed.parameters_for('/handos') == {'a': 1, 'nested.b': 2.5, 'a2': True, 'c': 'here'}
    assert parsed.parameters_for('/left/handos')['a'] == 3
    assert parsed.parameters_for('/right/handos')['a'] == 4
    assert parsed.parameters_for('/other')['x'] == [1, 2]


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        (['-r', 'image'], 'from:=to'),
        (['-r'], 'needs a value'),
        (['-p', 'a'], 'name:=value'),
        (['-p', 'a:={'], 'no YAML'),
        (['--params-file', '/nowhere.yaml'], 'cannot read'),
        (['--nonsense'], 'unknown ROS argument'),
    ],
)
def test_bad_arguments_are_named(words, complaint):
    with pytest.raises(ArgumentError, match=complaint):
        arguments.parse(['--ros-args', *words])


@pytest.mark.parametrize('text', ['just text', '- a\n- b\n', 'handos: 5\n', '{', '\x00'])
def test_bad_parameter_files_are_named(tmp_path, text):
    path = tmp_path / 'p.yaml'
    path.write_text(text)
    with pytest.raises(ArgumentError, match=r'p\.yaml'):
        arguments.parse(['--ros-args', '--params-file', str(path)])


@pytest.mark.parametrize(
    ('pattern', 'node', 'matches'),
    [
        ('/**', '/a', True),
        ('/**', '/a/b/c', True),
        ('/*', '/a', True),
        ('/*', '/a/b', False),
        ('/*/handos', '/left/handos', True),
        ('/**/handos', '/handos', True),
        ('/a/b', '/a/b', True),
        ('/a', '/a/b', False),
        ('/a/b', '/a', False),
    ],
)
def test_patterns_of_parameter_files(pattern, node, matches):
    assert arguments._matches(pattern, node) is matches


@pytest.fixture
def store():
    return messages.build_typestore()


def descriptor(store, **values):
    return store.types['rcl_interfaces/msg/ParameterDescriptor'](**values)


def test_parameters_take_overrides_and_keep_old_values_when_refused(store):
    server = ParameterServer(store, {'a': 5})
    bounds = store.types['rcl_interfaces/msg/IntegerRange'](from_value=0, to_value=9, step=1)
    assert server.declare('a', 1, descriptor(store, integer_range=[bounds])).value == 5
    assert server.declare('b', 'x').value == 'x'
    good, bad, wrong = server.set(
        [Parameter('a', value=7), Parameter('a', value=70), Parameter('a', value='7')]
    )
    assert good.successful and not bad.successful and 'not in' in bad.reason
    assert not wrong.successful and 'type' in wrong.reason
    assert server.get('a').value == 7


def test_read_only_and_callbacks(store):
    server = ParameterServer(store, {})
    server.declare('fixed', 1, descriptor(store, read_only=True))
    server.declare('free', 1)
    result_type = store.types['rcl_interfaces/msg/SetParametersResult']

    def no_sevens(changed):
        return result_type(successful=changed[0].value != 7, reason='seven')

    server.add_on_set(no_sevens)
    results = server.set(
        [Parameter('fixed', value=2), Parameter('free', value=7), Parameter('free', value=8)]
    )
    assert [r.successful for r in results] == [False, False, True]
    assert [r.reason for r in results] == ["parameter 'fixed' is read-only", 'seven', '']
    assert server.get('free').value == 8


def test_parameter_errors(store):
    server = ParameterServer(store, {'rate': 1, 'size': 70})
    with pytest.raises(InvalidParameterTypeException, match="'INTEGER', expecting type 'DOUBLE'"):
        server.declare('rate', 1.0)
    bounds = store.types['rcl_interfaces/msg/IntegerRange'](from_value=0, to_value=9, step=1)
    with pytest.raises(InvalidParameterValueException, match='70 is not in'):
        server.declare('size', 1, descriptor(store, integer_range=[bounds]))
    with pytest.raises(ParameterNotDeclaredException):
        server.get('unknown')
