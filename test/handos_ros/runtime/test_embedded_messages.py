"""Message classes, their bytes and their DDS types."""

import array

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from handos_ros.runtime.embedded.wire import cdr, messages
from handos_ros.runtime.embedded.wire.dds_types import DdsTypes, dds_type_name, ros_type_name

MESH = 'handos/msg/HandMesh'


@pytest.fixture(scope='module')
def store():
    return messages.build_typestore()


def test_every_field_has_a_default(store):
    for name, (_, fields) in store.fielddefs.items():
        message = store.types[name]()
        assert [field for field, _ in fields] == list(message.get_fields_and_field_types())


def test_defaults_are_those_of_ros(store):
    pose = store.types['geometry_msgs/msg/Pose']()
    assert (pose.orientation.w, pose.orientation.x) == (1.0, 0.0)
    assert store.types['std_msgs/msg/Header']().frame_id == ''
    assert store.types['sensor_msgs/msg/CameraInfo']().k.tolist() == [0.0] * 9


def test_defaults_are_not_shared(store):
    first, second = (store.types['std_msgs/msg/Header']() for _ in range(2))
    first.stamp.sec = 5
    assert second.stamp.sec == 0


def test_unknown_fields_are_refused(store):
    with pytest.raises(AttributeError, match='nonsense'):
        store.types[MESH](nonsense=1)
    with pytest.raises(AttributeError):
        store.types[MESH]().nonsense = 1


@pytest.mark.parametrize(
    'value',
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        array.array('f', [1, 2, 3]),
        np.array([1, 2, 3], np.float64),
        np.array([1, 2, 3], np.float32),
        np.array([[1], [2], [3]], np.float32),
        np.array([1, 9, 2, 9, 3], np.float32)[::2],
    ],
)
def test_arrays_take_what_rclpys_take(store, value):
    mesh = store.types[MESH](vertices_m=value)
    assert mesh.vertices_m.dtype == np.float32 and mesh.vertices_m.tolist() == [1, 2, 3]
    again = cdr.deserialize(store, bytes(cdr.serialize(store, mesh)), MESH)
    assert again == mesh


def test_byte_arrays_take_bytes(store):
    image = store.types['sensor_msgs/msg/Image'](data=b'\1\2\3')
    assert image.data.tolist() == [1, 2, 3]


def test_a_fixed_array_needs_its_length(store):
    with pytest.raises(AssertionError, match='needs 4 values, got 3'):
        store.types[MESH](box_xyxy_px=[1, 2, 3])


def test_messages_are_equal_by_value(store):
    mesh = store.types[MESH]
    assert mesh(id=1) == mesh(id=1) and mesh(id=1) != mesh(id=2)
    assert mesh() != store.types['std_msgs/msg/Header']()
    assert 'id=7' in repr(mesh(id=7))


def test_bytes_are_rosbags(store):
    plain = get_typestore(Stores.ROS2_JAZZY)
    header = plain.types['std_msgs/msg/Header'](
        plain.types['builtin_interfaces/msg/Time'](1, 2), 'frame'
    )
    image = plain.types['sensor_msgs/msg/Image'](
        header, 2, 3, 'rgb8', 0, 9, np.arange(18, dtype=np.uint8)
    )
    expected = bytes(plain.serialize_cdr(image, 'sensor_msgs/msg/Image'))
    ours = store.types['sensor_msgs/msg/Image'](
        height=2, width=3, encoding='rgb8', step=9, data=np.arange(18, dtype=np.uint8)
    )
    ours.header.frame_id, ours.header.stamp.sec, ours.header.stamp.nanosec = 'frame', 1, 2
    raw = bytes(cdr.serialize(store, ours))
    assert len(raw) % 4 == 0 and raw.rstrip(b'\0') == expected.rstrip(b'\0')
    assert cdr.deserialize(store, expected, 'sensor_msgs/msg/Image') == ours


def test_received_arrays_are_views(store):
    image = store.types['sensor_msgs/msg/Image'](data=np.zeros(100, np.uint8))
    raw = bytes(cdr.serialize(store, image))
    data = cdr.deserialize(store, raw, image.__msgtype__).data
    assert not data.flags.writeable and np.shares_memory(data, np.frombuffer(raw, np.uint8))


def test_big_endian_bytes_are_read(store):
    image = store.types['sensor_msgs/msg/Image'](height=7, encoding='x', data=b'\1')
    raw = bytes(store.serialize_cdr(image, image.__msgtype__, little_endian=False))
    assert cdr.deserialize(store, raw, image.__msgtype__) == image


@pytest.mark.parametrize('raw', [b'', b'\0', b'\0\1\0\0', b'\0\1\0\0' + b'\xff' * 60])
def test_bytes_that_are_no_message_are_refused(store, raw):
    with pytest.raises(ValueError, match='no sensor_msgs/msg/Image'):
        cdr.deserialize(store, raw, 'sensor_msgs/msg/Image')


def test_distributions(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    gid = messages.build_typestore().types['rmw_dds_common/msg/Gid']()
    assert len(gid.data) == 24
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    assert len(messages.build_typestore().types['rmw_dds_common/msg/Gid']().data) == 16
    monkeypatch.setenv('ROS_DISTRO', 'a distribution of the future')
    assert len(messages.build_typestore().types) > 150


def test_our_messages_are_found():
    names = {path.stem for path in messages.message_folder().glob('*.msg')}
    assert names == {'HandMesh', 'HandMeshArray', 'HandTopology'}


def test_every_field_of_our_messages_is_explained():
    for path in messages.message_folder().glob('*.msg'):
        explained = True
        for line in path.read_text().splitlines():
            if line.startswith('#'):
                explained = True
            elif not line.strip():
                explained = False
            else:
                assert explained or '=' in line or '#' in line, f'{path.name}: {line}'


def test_type_names():
    name = 'sensor_msgs/msg/Image'
    assert dds_type_name(name) == 'sensor_msgs::msg::dds_::Image_'
    assert ros_type_name(dds_type_name(name)) == name
    assert ros_type_name('Other') == 'Other'


def test_dds_types_of_every_message(store):
    types = DdsTypes(store)
    built = {name: types[name] for name, (_, fields) in store.fielddefs.items() if fields}
    assert len(built) > 150
    image = built['sensor_msgs/msg/Image']
    assert image.__idl__.idl_transformed_typename == 'sensor_msgs::msg::dds_::Image_'
    assert types['sensor_msgs/msg/Image'] is image


def test_dds_bytes_are_those_of_cyclonedds(store):
    """The type description and the bytes agree: cyclonedds reads what rosbags writes."""
    store.register(
        get_types_from_msg(
            'bool a\nint16[3] b\nstring[] c\nfloat64[] d\nbyte e\nuint8[] f\nstring<=9 g\n'
            'std_msgs/Header[] h\nchar i\nint64 j\n',
            'handos/msg/Probe',
        )
    )
    messages.adopt_message_classes(store)
    probe = store.types['handos/msg/Probe'](
        a=True, b=[1, -2, 3], c=['x', 'yz'], d=[0.5, 1.5], e=7, f=[1, 2, 3], g='nine', i=9, j=-5
    )
    probe.h = [store.types['std_msgs/msg/Header'](frame_id='q')]
    raw = bytes(cdr.serialize(store, probe))
    dds_type = DdsTypes(store)['handos/msg/Probe']
    read = dds_type.deserialize(raw)
    assert (read.a, list(read.b), read.c, read.g, read.j) == (
        True,
        [1, -2, 3],
        ['x', 'yz'],
        'nine',
        -5,
    )
    assert read.h[0].frame_id == 'q' and list(read.f) == [1, 2, 3]
    again = read.serialize(use_version_2=False)
    assert again.rstrip(b'\0') == raw.rstrip(b'\0')
