"""What only the embedded runtime has: its transport, discovery and contexts."""

import os
import threading
import time

import numpy as np
import pytest
from bench import STRING, text

from handos_ros import runtime

if runtime.chosen_runtime() != 'embedded':
    pytest.skip('these test the embedded runtime itself', allow_module_level=True)

from handos_ros.runtime.embedded.context import Context, get_default_context
from handos_ros.runtime.embedded.executor import SingleThreadedExecutor
from handos_ros.runtime.embedded.node import Node
from handos_ros.runtime.embedded.wire import transport
from handos_ros.runtime.embedded.wire.qos import QoSProfile


def test_prepared_bytes_can_be_published_and_taken_raw(bench, ros):
    from handos_ros.runtime.embedded.wire import cdr

    talker, listener = bench.nodes
    raw = bytes(cdr.serialize(talker.context.store, text(ros, 'hello')))
    got = []
    message_type = ros.message_type(STRING)
    listener.create_subscription(
        message_type, 'chatter', got.append, QoSProfile(depth=5), raw=True
    )
    publisher = talker.create_publisher(message_type, 'chatter', QoSProfile(depth=5))
    bench.spin_until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(raw)
    bench.spin_until(lambda: got)
    assert got == [raw]


def test_one_topic_has_one_type_in_a_process(bench, ros):
    bench.nodes[0].create_publisher(ros.message_type(STRING), 'one_type', 5)
    with pytest.raises(TypeError, match='carries std_msgs/msg/String'):
        bench.nodes[0].create_publisher(ros.message_type('std_msgs/msg/Header'), 'one_type', 5)


@pytest.mark.fault('network', 'a reader that no longer reads', 'the publisher goes on')
def test_keep_last_never_blocks_on_a_reader_that_stopped(bench, ros):
    """The reader is reliable and never taken from; KEEP_LAST lets the writer go on."""
    talker, listener = bench.nodes
    image_type = ros.message_type('sensor_msgs/msg/Image')
    listener.create_subscription(image_type, 'stuck', lambda m: None, QoSProfile(depth=1))
    publisher = talker.create_publisher(image_type, 'stuck', QoSProfile(depth=1))
    bench.spin_until(lambda: publisher.get_subscription_count() == 1)
    message = image_type(data=np.zeros(900_000, np.uint8))
    beats = []
    stop = threading.Event()

    def beat():
        while not stop.wait(0.01):
            beats.append(1)

    thread = threading.Thread(target=beat)
    thread.start()
    published, deadline_s = 0, time.monotonic() + 10
    while published < 100 or (not beats and time.monotonic() < deadline_s):
        publisher.publish(message)
        published += 1
    stop.set()
    thread.join()
    assert beats  # other threads went on meanwhile


def test_nodes_are_visible_in_the_graph_as_ros_2_shows_it(bench, ros):
    """What `ros2 node list` and `ros2 topic info` read: ros_discovery_info."""
    talker, listener = bench.nodes
    context = get_default_context()
    publisher = talker.create_publisher(ros.message_type(STRING), 'chatter', 5)
    subscription = listener.create_subscription(ros.message_type(STRING), 'chatter', print, 5)
    info_type = 'rmw_dds_common/msg/ParticipantEntitiesInfo'
    reader = transport.RawReader(
        context.participant,
        context.topic('ros_discovery_info', info_type),
        QoSProfile(depth=10, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL).to_dds(),
    )
    taken = []
    bench.spin_until(lambda: taken.extend(reader.take(10)) or taken)
    from handos_ros.runtime.embedded.wire import cdr

    info = cdr.deserialize(context.store, taken[-1], info_type)
    nodes = {entry.node_name: entry for entry in info.node_entities_info_seq}
    assert {'talker', 'listener'} <= nodes.keys()
    assert nodes['talker'].node_namespace == '/'
    writers = [bytes(gid.data) for gid in nodes['talker'].writer_gid_seq]
    readers = [bytes(gid.data) for gid in nodes['listener'].reader_gid_seq]
    assert publisher.writer.entity.guid.bytes in writers
    assert subscription.reader.entity.guid.bytes in readers
    assert bytes(info.gid.data) == context.participant.guid.bytes
    transport.delete(reader.entity)


def test_endpoints_carry_the_type_hash(bench, ros):
    from cyclonedds.core import Policy

    publisher = bench.nodes[0].create_publisher(
        ros.message_type('sensor_msgs/msg/Image'), 'hashed', 5
    )
    qos = publisher.writer.entity.get_qos()
    assert qos[Policy.Userdata].data.startswith(b'typehash=RIHS01_')


def test_bytes_that_are_no_message_are_dropped(ros, bench, capsys):
    """DDS itself drops what does not fit the type; rosbags checks once more."""
    talker, listener = bench.nodes
    got = []
    message_type = ros.message_type(STRING)
    listener.create_subscription(message_type, 'bad', lambda m: got.append(m.data), 5)
    publisher = talker.create_publisher(message_type, 'bad', 5)
    bench.spin_until(lambda: publisher.get_subscription_count() == 1)
    not_utf8 = b'\0\1\0\0\4\0\0\0\xff\xfe\xfd\0'
    publisher.publish(not_utf8)
    publisher.publish(text(ros, 'good'))
    bench.spin_until(lambda: got)
    assert got == ['good']
    assert 'dropped a malformed message on /bad' in capsys.readouterr().err


def test_spin_returns_when_the_context_stops():
    context = Context()
    context.init([], int(os.environ['ROS_DOMAIN_ID']) + 100)
    node = Node('spinner', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    threading.Timer(0.1, context.stop).start()
    executor.spin()
    assert not context.ok()
    executor.shutdown()
    node.destroy_node()
    context.shutdown()


def test_a_namespace_and_name_from_the_command_line():
    context = Context()
    arguments = '--ros-args -r __ns:=/robot -r __node:=eyes -r image:=/cam/image -p a:=5'
    context.init(arguments.split(), int(os.environ['ROS_DOMAIN_ID']) + 100)
    node = Node('handos', context=context)
    assert node.get_fully_qualified_name() == '/robot/eyes'
    assert node.resolve_topic_name('image') == '/cam/image'
    assert node.resolve_topic_name('~/hands') == '/robot/eyes/hands'
    assert node.declare_parameter('a', 1).value == 5
    node.destroy_node()
    context.shutdown()


def test_large_messages_are_configured_and_the_users_settings_come_last(monkeypatch):
    monkeypatch.setenv('CYCLONEDDS_URI', 'file:///etc/mine.xml')
    config = transport.cyclonedds_config()
    assert '<MaxMessageSize>65500B</MaxMessageSize>' in config
    assert '<FragmentSize>64000B</FragmentSize>' in config and 'SocketReceiveBufferSize' in config
    assert config.endswith(',file:///etc/mine.xml')
    assert 'address="127.0.0.1"' in config  # the tests' own setting
    monkeypatch.delenv('ROS_LOCALHOST_ONLY')
    monkeypatch.delenv('ROS_AUTOMATIC_DISCOVERY_RANGE')
    assert '127.0.0.1' not in transport.cyclonedds_config()
