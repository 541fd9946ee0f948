"""Nodes, publishers, subscriptions, timers, life cycle and the graph on Cyclone DDS."""

import os
import threading
import time

import numpy as np
import pytest

from handos_ros import runtime

if runtime.chosen_runtime() != 'embedded':
    pytest.skip('these test the embedded runtime itself', allow_module_level=True)

from handos_ros.runtime.embedded import transport
from handos_ros.runtime.embedded.context import Context, get_default_context
from handos_ros.runtime.embedded.executor import SingleThreadedExecutor
from handos_ros.runtime.embedded.node import Node
from handos_ros.runtime.embedded.qos import HistoryPolicy, QoSProfile

STRING = 'std_msgs/msg/String'


class Bench:
    """Nodes in one executor."""

    def __init__(self, ros, *names):
        self.ros = ros
        self.nodes = [ros.Node(name) for name in names]
        self.executor = ros.SingleThreadedExecutor()
        for node in self.nodes:
            self.executor.add_node(node)

    def spin_until(self, condition, timeout_s=10.0):
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, 'timed out'
            self.executor.spin_once(timeout_sec=0.02)

    def close(self):
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()


@pytest.fixture
def bench(ros):
    made = Bench(ros, 'talker', 'listener')
    yield made
    made.close()


def text(ros, value):
    return ros.message_type(STRING)(data=value)


def test_messages_arrive_in_order(bench, ros):
    talker, listener = bench.nodes
    got = []
    listener.create_subscription(
        ros.message_type(STRING), 'chatter', lambda m: got.append(m.data), QoSProfile(depth=50)
    )
    publisher = talker.create_publisher(ros.message_type(STRING), 'chatter', 50)
    bench.spin_until(lambda: publisher.get_subscription_count() == 1)
    sent = [str(index) for index in range(30)]
    for value in sent:
        publisher.publish(text(ros, value))
    bench.spin_until(lambda: len(got) == 30)
    assert got == sent


def test_prepared_bytes_can_be_published_and_taken_raw(bench, ros):
    from handos_ros.runtime.embedded import cdr

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


def test_another_message_is_refused(bench, ros):
    publisher = bench.nodes[0].create_publisher(ros.message_type(STRING), 'chatter', 5)
    with pytest.raises(TypeError, match='expected std_msgs/msg/String'):
        publisher.publish(ros.message_type('std_msgs/msg/Header')())


def test_one_topic_has_one_type_in_a_process(bench, ros):
    bench.nodes[0].create_publisher(ros.message_type(STRING), 'one_type', 5)
    with pytest.raises(TypeError, match='carries std_msgs/msg/String'):
        bench.nodes[0].create_publisher(ros.message_type('std_msgs/msg/Header'), 'one_type', 5)


def test_latched_messages_reach_a_late_joiner(bench, ros):
    talker, listener = bench.nodes
    latched = QoSProfile(depth=1, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL)
    message_type = ros.message_type(STRING)
    publisher = talker.create_publisher(message_type, 'latched', latched)
    publisher.publish(text(ros, 'old'))
    publisher.publish(text(ros, 'new'))
    got = []
    listener.create_subscription(message_type, 'latched', lambda m: got.append(m.data), latched)
    bench.spin_until(lambda: got)
    assert got == ['new']


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
    for _ in range(100):
        publisher.publish(message)
    stop.set()
    thread.join()
    assert beats  # other threads went on meanwhile


def test_large_messages_arrive_whole(bench, ros):
    talker, listener = bench.nodes
    image_type = ros.message_type('sensor_msgs/msg/Image')
    got = []
    qos = QoSProfile(depth=5, reliability=ros.ReliabilityPolicy.BEST_EFFORT)
    listener.create_subscription(image_type, 'large', got.append, qos)
    publisher = talker.create_publisher(image_type, 'large', qos)
    bench.spin_until(lambda: publisher.get_subscription_count() == 1)
    data = np.random.default_rng(0).integers(0, 256, 1920 * 1080 * 3).astype(np.uint8)
    publisher.publish(image_type(data=data))
    bench.spin_until(lambda: got)
    assert np.array_equal(got[0].data, data)


def test_incompatible_qos_is_told(bench, ros):
    talker, listener = bench.nodes
    told = []
    message_type = ros.message_type(STRING)
    listener.create_subscription(
        message_type,
        'strict',
        lambda m: None,
        QoSProfile(depth=1),
        event_callbacks=ros.SubscriptionEventCallbacks(incompatible_qos=told.append),
    )
    qos = QoSProfile(depth=1, reliability=ros.ReliabilityPolicy.BEST_EFFORT)
    talker.create_publisher(message_type, 'strict', qos)
    bench.spin_until(lambda: told)
    assert told[0].total_count == 1


def test_publishers_are_found_with_type_and_qos(bench, ros):
    talker, listener = bench.nodes
    assert listener.count_publishers('/found') == 0
    qos = QoSProfile(
        depth=1,
        reliability=ros.ReliabilityPolicy.BEST_EFFORT,
        durability=ros.DurabilityPolicy.TRANSIENT_LOCAL,
    )
    publisher = talker.create_publisher(ros.message_type(STRING), 'found', qos)
    bench.spin_until(lambda: listener.count_publishers('found') == 1)
    (info,) = listener.get_publishers_info_by_topic('found')
    assert info.topic_type == STRING
    assert info.qos_profile.reliability == ros.ReliabilityPolicy.BEST_EFFORT
    assert info.qos_profile.durability == ros.DurabilityPolicy.TRANSIENT_LOCAL
    talker.destroy_publisher(publisher)
    bench.spin_until(lambda: listener.count_publishers('found') == 0)


def test_qos_overrides_are_parameters(ros):
    overrides = [
        ros.Parameter('qos_overrides./over.subscription.depth', value=7),
        ros.Parameter('qos_overrides./over.subscription.reliability', value='best_effort'),
        ros.Parameter('qos_overrides./over.subscription.history', value='keep_all'),
    ]
    node = ros.Node('overridden', parameter_overrides=overrides)
    options = ros.QoSOverridingOptions.with_default_policies()
    subscription = node.create_subscription(
        ros.message_type(STRING), 'over', print, 10, qos_overriding_options=options
    )
    profile = subscription.qos_profile
    assert (profile.depth, profile.history) == (7, HistoryPolicy.KEEP_ALL)
    assert profile.reliability == ros.ReliabilityPolicy.BEST_EFFORT
    node.destroy_node()


def test_a_qos_override_that_is_none_is_named(ros):
    overrides = [ros.Parameter('qos_overrides./over.publisher.reliability', value='sometimes')]
    node = ros.Node('overridden', parameter_overrides=overrides)
    options = ros.QoSOverridingOptions.with_default_policies()
    with pytest.raises(RuntimeError, match=r'reliability.*sometimes'):
        node.create_publisher(ros.message_type(STRING), 'over', 10, qos_overriding_options=options)
    node.destroy_node()


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
    from handos_ros.runtime.embedded import cdr

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


def test_timers_call_back_until_they_are_cancelled(bench):
    node = bench.nodes[0]
    calls = []
    timer = node.create_timer(0.01, lambda: calls.append(1))
    bench.spin_until(lambda: len(calls) == 3)
    timer.cancel()
    seen = len(calls)
    for _ in range(5):
        bench.executor.spin_once(timeout_sec=0.02)
    assert len(calls) == seen
    timer.reset()
    bench.spin_until(lambda: len(calls) > seen)
    assert node.destroy_timer(timer) and not node.destroy_timer(timer)


def test_log_lines_go_to_stderr_and_rosout(bench, ros, capsys):
    talker, listener = bench.nodes
    got = []
    log_type = ros.message_type('rcl_interfaces/msg/Log')
    qos = QoSProfile(depth=10, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL)
    listener.create_subscription(log_type, '/rosout', got.append, qos)
    talker.get_logger().warning('careful')
    talker.get_logger().debug('too much')
    bench.spin_until(lambda: got)
    assert (got[0].msg, got[0].level, got[0].name) == ('careful', 30, 'talker')
    printed = capsys.readouterr().err
    assert '[WARN]' in printed and '[talker]: careful' in printed and 'too much' not in printed


def test_destroying_twice_is_harmless(bench, ros):
    node = bench.nodes[0]
    publisher = node.create_publisher(ros.message_type(STRING), 'x', 5)
    subscription = node.create_subscription(ros.message_type(STRING), 'x', print, 5)
    assert node.destroy_publisher(publisher) and not node.destroy_publisher(publisher)
    assert node.destroy_subscription(subscription)
    assert not node.destroy_subscription(subscription)


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


def test_life_cycle(ros):
    success, failure = ros.TransitionCallbackReturn.SUCCESS, ros.TransitionCallbackReturn.FAILURE
    called = []

    class Managed(ros.LifecycleNode):
        def on_configure(self, state):
            called.append(('configure', state.label))
            return failure if len(called) == 1 else success

        def on_cleanup(self, state):
            raise RuntimeError('broken')

    node = Managed('managed')
    publisher = node.create_lifecycle_publisher(ros.message_type(STRING), 'managed', 5)
    assert node.trigger_activate() == ros.TransitionCallbackReturn.ERROR  # not configured
    assert node.trigger_configure() == failure and node.trigger_configure() == success
    assert not publisher.is_activated
    publisher.publish(text(ros, 'nobody hears this'))
    assert node.trigger_activate() == success and publisher.is_activated
    assert node.trigger_deactivate() == success and not publisher.is_activated
    assert node.trigger_cleanup() == ros.TransitionCallbackReturn.ERROR
    assert node.trigger_configure() == success  # the error was handled: unconfigured again
    assert node.trigger_shutdown() == success
    assert node.trigger_configure() == ros.TransitionCallbackReturn.ERROR
    assert called == [('configure', 'unconfigured')] * 3
    node.destroy_node()


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
