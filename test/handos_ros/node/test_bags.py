"""Recordings in, recordings with hands out."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import FakePerception, make_hand
from rosbags.rosbag2 import Reader

from handos_model.errors import UserError
from handos_model.types import TrackState
from handos_ros.node import bag_processing
from handos_ros.node.bag_processing import BagProcessor, CameraTopics, find_camera
from handos_ros.node.parameters import Settings
from handos_ros.runtime.bags import BagReader, BagWriter, full_type_name

IMAGE = 'sensor_msgs/msg/Image'
INFO = 'sensor_msgs/msg/CameraInfo'
WIDTH, HEIGHT = 64, 48


def image(messages, stamp_ns: int, **changes):
    values = {
        'width': WIDTH,
        'height': HEIGHT,
        'step': WIDTH * 3,
        'encoding': 'rgb8',
        'data': np.full(WIDTH * HEIGHT * 3, 7, np.uint8),
    }
    message = messages(IMAGE)(**{**values, **changes})
    message.header.frame_id = 'camera_optical'
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return message


def write_bag(path: Path, messages, entries, *, mcap: bool, types=None) -> None:
    """`entries`: (topic, time_ns, message)."""
    with BagWriter(path, messages, mcap=mcap) as writer:
        for topic, time_ns, message in entries:
            writer.add_topic(topic, message.__msgtype__)
            writer.write(topic, time_ns, messages.serialize(message))


def process(messages, source: Path, target: Path, perception=None, camera=None, **options):
    with BagReader(source) as reader:
        camera = camera or find_camera(reader.topics)
        with BagWriter(target, messages, mcap=reader.is_mcap) as writer:
            processor = BagProcessor(
                messages,
                writer,
                perception or FakePerception(),
                Settings(**options),
                camera,
            )
            counts = list(processor.run(reader))
            assert counts == list(range(1, reader.message_count + 1))
    return processor.report


def read_all(messages, path: Path) -> dict[str, list]:
    content: dict[str, list] = {}
    with BagReader(path) as reader:
        for message in reader.messages():
            content.setdefault(message.topic, []).append(message)
    return content


@pytest.fixture(params=[False, True], ids=['sqlite3', 'mcap'])
def mcap(request) -> bool:
    return request.param


def seconds(count: int) -> list[int]:
    return [(index + 1) * 10**9 for index in range(count)]


def test_every_message_is_kept_and_hands_follow_each_image(messages, tmp_path, mcap):
    text = messages('std_msgs/msg/String')(data='hello')
    entries = [('/text', 5, text), *(('/image', t, image(messages, t)) for t in seconds(5))]
    write_bag(tmp_path / 'in', messages, entries, mcap=mcap)
    report = process(messages, tmp_path / 'in', tmp_path / 'out')
    assert (report.images, report.processed, report.hands) == (5, 5, 10)
    before, after = read_all(messages, tmp_path / 'in'), read_all(messages, tmp_path / 'out')
    for topic in before:
        assert [(m.time_ns, m.raw) for m in after[topic]] == [
            (m.time_ns, m.raw) for m in before[topic]
        ]
    hands = [messages.deserialize(message) for message in after['/handos/hands']]
    assert [m.header.stamp.sec for m in hands] == [1, 2, 3, 4, 5]
    assert {m.header.frame_id for m in hands} == {'camera_optical'}
    assert [m.time_ns for m in after['/handos/hands']] == seconds(5)
    assert len(after['/handos/markers']) == 5 and len(after['/tf']) == 5
    topology = messages.deserialize(after['/handos/topology'][0])
    assert topology.template_hash == 'abc' and after['/handos/topology'][0].time_ns == 5


def test_topology_is_latched_in_the_recording(messages, tmp_path, mcap):
    write_bag(tmp_path / 'in', messages, [('/image', 9, image(messages, 9))], mcap=mcap)
    process(messages, tmp_path / 'in', tmp_path / 'out')
    with Reader(tmp_path / 'out') as reader:
        connection = next(c for c in reader.connections if c.topic == '/handos/topology')
        assert connection.ext.offered_qos_profiles[0].durability.name == 'TRANSIENT_LOCAL'


def test_processing_twice_replaces_the_hands(messages, tmp_path):
    write_bag(tmp_path / 'in', messages, [('/image', 9, image(messages, 9))], mcap=True)
    process(messages, tmp_path / 'in', tmp_path / 'once')
    process(messages, tmp_path / 'once', tmp_path / 'twice')
    assert len(read_all(messages, tmp_path / 'twice')['/handos/hands']) == 1


def test_calibration_and_depth_are_used(messages, tmp_path):
    info = messages(INFO)(
        width=WIDTH,
        height=HEIGHT,
        distortion_model='plumb_bob',
        k=[50.0, 0, 32, 0, 50, 24, 0, 0, 1],
    )
    depth = image(
        messages,
        2_000_000,
        encoding='16UC1',
        step=WIDTH * 2,
        data=np.full(WIDTH * HEIGHT, 500, np.uint16).view(np.uint8),
    )
    entries = [
        ('/cam/camera_info', 1, info),
        ('/cam/image', 2, image(messages, 2_000_000)),
        ('/cam/depth', 3, depth),  # depth comes after its image
        ('/cam/image', 4, image(messages, 4 * 10**9)),
    ]
    write_bag(tmp_path / 'in', messages, entries, mcap=True)
    perception = FakePerception()
    camera = CameraTopics('/cam/image', '/cam/camera_info', '/cam/depth')
    process(messages, tmp_path / 'in', tmp_path / 'out', perception, camera, use_depth=True)
    assert all(camera.calibrated for camera in perception.cameras)
    assert np.all(perception.depths[0] == 0.5) and perception.depths[1] is None


@pytest.mark.fault('disk', 'a recording with bad images', 'counted and named')
def test_bad_images_are_counted_and_named(messages, tmp_path, mcap):
    entries = [
        ('/image', 1, image(messages, 1)),
        ('/image', 2, image(messages, 2, data=np.zeros(30, np.uint8))),
        ('/image', 3, image(messages, 3)),
        ('/image', 4, image(messages, 3)),  # the same stamp again
    ]
    write_bag(tmp_path / 'in', messages, entries, mcap=mcap)
    report = process(messages, tmp_path / 'in', tmp_path / 'out')
    assert (report.images, report.processed) == (4, 2)
    assert any('data has 30 bytes' in text for text in report.problems)
    assert sum(report.problems.values()) == 2


def test_bytes_that_are_no_message_are_counted(messages, tmp_path, mcap):
    with BagWriter(tmp_path / 'in', messages, mcap=mcap) as writer:
        writer.add_topic('/image', IMAGE)
        for time_ns, raw in enumerate((b'', b'\0\1\0\0', b'\0\1\0\0' + bytes(100)), 1):
            writer.write('/image', time_ns, raw)
        writer.write('/image', 9, messages.serialize(image(messages, 9)))
    report = process(messages, tmp_path / 'in', tmp_path / 'out')
    assert (report.images, report.processed) == (4, 1)
    assert len(read_all(messages, tmp_path / 'out')['/image']) == 4


def test_lost_hands_are_said(messages, tmp_path):
    stamps_ns = [10**9, 11 * 10**8, 2 * 10**9]  # the last is too late for any track to go on
    entries = [('/image', t, image(messages, t)) for t in stamps_ns]
    write_bag(tmp_path / 'in', messages, entries, mcap=True)
    perception = FakePerception()
    calls = []

    def lose_one():
        calls.append(1)
        perception.hands = perception.hands[: 3 - len(calls)]

    perception.before = lose_one
    process(messages, tmp_path / 'in', tmp_path / 'out', perception)
    hands = read_all(messages, tmp_path / 'out')['/handos/hands']
    states = [[hand.state for hand in messages.deserialize(said).hands] for said in hands]
    tracked, coasting, lost = TrackState.TRACKED, TrackState.COASTING, TrackState.LOST
    assert states == [[tracked, tracked], [tracked, coasting], [lost, lost]]


def test_unknown_types_are_copied(messages, tmp_path, mcap):
    from rosbags.typesys import get_types_from_msg

    messages.store.register(get_types_from_msg('int32 value\n', 'robot/msg/Secret'))
    from handos_ros.runtime.bags import Messages
    from handos_ros.runtime.embedded.wire.messages import adopt_message_classes

    adopt_message_classes(messages.store)
    secret = messages('robot/msg/Secret')(value=7)
    entries = [('/secret', 1, secret), ('/image', 2, image(messages, 2))]
    write_bag(tmp_path / 'in', messages, entries, mcap=mcap)
    innocent = Messages()
    assert 'robot/msg/Secret' not in innocent.store.types
    process(innocent, tmp_path / 'in', tmp_path / 'out')
    copied = read_all(innocent, tmp_path / 'out')['/secret'][0]
    assert (copied.type_name, copied.raw) == ('robot/msg/Secret', messages.serialize(secret))


@pytest.mark.parametrize(
    ('topics', 'found'),
    [
        ({'/image': IMAGE, '/camera_info': INFO}, ('/image', '/camera_info')),
        ({'/a/image_raw': IMAGE, '/a/camera_info': INFO, '/camera_info': INFO},
         ('/a/image_raw', '/a/camera_info')),
        ({'/image': IMAGE, '/image/compressed': 'sensor_msgs/msg/CompressedImage'},
         ('/image', '')),
        ({'/image/compressed': 'sensor_msgs/msg/CompressedImage', '/camera_info': INFO},
         ('/image/compressed', '/camera_info')),
        ({'/color/image': IMAGE, '/depth/image': IMAGE}, ('/color/image', '')),
    ],
)  # fmt: skip
def test_the_camera_is_found(topics, found):
    camera = find_camera(topics)
    assert (camera.image, camera.camera_info) == found


@pytest.mark.parametrize(
    ('topics', 'words'), [({}, 'no image'), ({'/a': IMAGE, '/b': IMAGE}, 'several')]
)
def test_a_camera_that_is_not_clear_is_asked_for(topics, words):
    with pytest.raises(UserError, match=words):
        find_camera(topics)


def test_a_topic_that_is_no_image_is_refused():
    with pytest.raises(UserError, match='/x is no image topic'):
        find_camera({'/image': IMAGE}, '/x')


def test_nothing_is_overwritten(messages, tmp_path):
    with pytest.raises(UserError, match='exists already'):
        BagWriter(tmp_path, messages, mcap=True)


@pytest.mark.parametrize('name', ['missing', 'text', 'empty.mcap', 'empty.db3', 'noise.mcap'])
@pytest.mark.fault('disk', 'a file that is no recording', 'refused in one line')
def test_what_is_no_recording_is_refused(tmp_path, name):
    path = tmp_path / name
    if name != 'missing':
        path.write_bytes(b'' if 'empty' in name else b'\x89MCAP0\r\n' + bytes(range(256)))
    with pytest.raises(UserError, match=r'no recording|damaged'), BagReader(path) as reader:
        list(reader.messages())


@pytest.mark.fault('disk', 'a recording that is cut off', 'said; what is whole is used')
def test_a_cut_recording_is_named(messages, tmp_path):
    entries = [('/image', t, image(messages, t)) for t in seconds(20)]
    write_bag(tmp_path / 'in', messages, entries, mcap=True)
    file = next((tmp_path / 'in').glob('*.mcap'))
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UserError), BagReader(tmp_path / 'in') as reader:
        list(reader.messages())


def test_a_real_recording_with_old_type_names(messages, shared_data, tmp_path):
    source = shared_data / 'rosbag2js' / 'examples' / 'sample.db3'
    for topic, name in (('/image', 'raw'), ('/image/compressed', 'jpeg')):
        perception = FakePerception()
        report = process(messages, source, tmp_path / name, perception, CameraTopics(topic, ''))
        assert (report.processed, report.problems) == (1, {})
        assert min(perception.shapes[0][:2]) > 100
    assert full_type_name('sensor_msgs/Image') == IMAGE


@pytest.mark.parametrize('name', ['test_bag_sqlite3', 'test_bag_mcap'])
def test_the_malformed_recording(messages, shared_data, tmp_path, name):
    """Its image says 640x480 and has 30 bytes."""
    source = shared_data / 'rosbags-rs' / 'tests' / 'test_bags' / name
    camera = CameraTopics('/test/sensor_msgs/image', '')
    report = process(messages, source, tmp_path / 'out', None, camera)
    assert (report.images, report.processed) == (2, 0)
    assert any('data has 30 bytes' in text for text in report.problems)
    before, after = read_all(messages, source), read_all(messages, tmp_path / 'out')
    assert {topic: [m.raw for m in got] for topic, got in before.items()} == {
        topic: [m.raw for m in after[topic]] for topic in before
    }


def test_a_real_recording_with_zstd(messages, shared_data, tmp_path):
    folder = shared_data / 'rosbag-amber' / 'tests' / 'rosbag' / 'soccer_goal'
    with pytest.raises(UserError, match='missing'):  # of its files only the last is here
        BagReader(folder)
    perception = FakePerception()
    report = process(messages, folder / 'soccer_goal_12.mcap', tmp_path / 'out', perception)
    assert (report.images, report.processed) == (2, 2) and len(perception.shapes) == 2


def test_a_video_of_hands_becomes_a_recording(messages, shared_data, tmp_path):
    """A real clip, written as a compressed camera would, read back frame by frame."""
    video = cv2.VideoCapture(
        str(shared_data / 'tfjs-hand' / 'hand-pose-detection' / 'test_data' / 'asl_hand.25fps.mp4')
    )
    assert video.isOpened()
    image_type = messages('sensor_msgs/msg/CompressedImage')
    entries = []
    for index in range(20):
        jpeg = cv2.imencode('.jpg', video.read()[1])[1]
        message = image_type(format='jpeg', data=jpeg.reshape(-1))
        message.header.stamp.sec = index + 1
        entries.append(('/image/compressed', index + 1, message))
    write_bag(tmp_path / 'in', messages, entries, mcap=True)
    perception = FakePerception([make_hand(0)])
    report = process(messages, tmp_path / 'in', tmp_path / 'out', perception)
    assert (report.processed, report.hands) == (20, 20)
    assert perception.shapes == [(1080, 620, 3)] * 20


def test_own_topics_are_those_of_the_node():
    from handos_ros.node.outputs import TOPICS, TOPOLOGY

    assert TOPICS['hands'][1] == bag_processing.HANDS_TYPE
    assert TOPICS['markers'][1] == bag_processing.MARKERS_TYPE
    assert TOPICS['transforms'][:2] == (bag_processing.TF, bag_processing.TF_TYPE)
    assert TOPOLOGY[1] == bag_processing.TOPOLOGY_TYPE
    assert TOPICS['hands'][0].replace('~', '/handos') == bag_processing.HANDS


def test_the_command(messages, tmp_path, monkeypatch, capsys):
    from handos_ros import cli
    from handos_ros.node import perception

    monkeypatch.setattr(
        perception, 'PipelinePerception', lambda settings, report: FakePerception()
    )
    entries = [('/image', t, image(messages, t)) for t in seconds(3)]
    bad = image(messages, 4 * 10**9, encoding='h264')
    write_bag(tmp_path / 'in', messages, [*entries, ('/image', 9 * 10**9, bad)], mcap=True)
    arguments = ['bag', str(tmp_path / 'in'), str(tmp_path / 'out'), '--markers']
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, '-p', 'publish_tf:=false'])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert (
        '3 of 4 images of /image, 6 hands' in printed and "1 left out: encoding 'h264'" in printed
    )
    after = read_all(messages, tmp_path / 'out')
    assert len(after['/handos/markers']) == 3 and '/tf' not in after


@pytest.mark.parametrize(
    'arguments', [['missing', 'out'], ['in', 'out', '-p', 'nonsense:=1'], ['in', 'in']]
)
def test_the_command_says_what_is_wrong(messages, tmp_path, monkeypatch, capsys, arguments):
    from handos_ros import cli
    from handos_ros.node import perception

    monkeypatch.setattr(
        perception, 'PipelinePerception', lambda settings, report: FakePerception()
    )
    monkeypatch.chdir(tmp_path)
    write_bag(tmp_path / 'in', messages, [('/image', 9, image(messages, 9))], mcap=True)
    with pytest.raises(SystemExit) as ended:
        cli.main(['bag', *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith('handos: ')
