"""Nodes, publishers, subscriptions, timers and life cycle: the same on rclpy and embedded."""

import array

import numpy as np
import pytest
from bench import STRING, text


def chatter(bench, ros):
    """A publisher of strings, and the list that fills with what another node hears of it."""
    talker, listener = bench.nodes
    got = []
    listener.create_subscription(
        ros.message_type(STRING), 'chatter', lambda m: got.append(m.data), ros.QoSProfile(depth=50)
    )
    publisher = talker.create_publisher(ros.message_type(STRING), 'chatter', 50)
    bench.spin_until(lambda: publisher.get_subscription_count() == 1)
    return publisher, got


def test_messages_arrive_in_order(bench, ros):
    publisher, got = chatter(bench, ros)
    sent = [str(index) for index in range(30)]
    for value in sent:
        publisher.publish(text(ros, value))
    bench.spin_until(lambda: len(got) == 30)
    assert got == sent


def test_prepared_bytes_can_be_published(bench, ros):
    publisher, got = chatter(bench, ros)
    publisher.publish(b'\0\1\0\0\6\0\0\0hello\0')  # little-endian CDR
    bench.spin_until(lambda: got)
    assert got == ['hello']


def test_another_message_is_refused(bench, ros):
    publisher = bench.nodes[0].create_publisher(ros.message_type(STRING), 'chatter', 5)
    with pytest.raises(TypeError, match=r'(?i)expected'):
        publisher.publish(ros.message_type('std_msgs/msg/Header')())


def test_latched_messages_reach_a_late_joiner(bench, ros):
    talker, listener = bench.nodes
    latched = ros.QoSProfile(depth=1, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL)
    message_type = ros.message_type(STRING)
    publisher = talker.create_publisher(message_type, 'latched', latched)
    publisher.publish(text(ros, 'old'))
    publisher.publish(text(ros, 'new'))
    got = []
    listener.create_subscription(message_type, 'latched', lambda m: got.append(m.data), latched)
    bench.spin_until(lambda: got)
    assert got == ['new']


def test_large_messages_arrive_whole(bench, ros):
    talker, listener = bench.nodes
    image_type = ros.message_type('sensor_msgs/msg/Image')
    got = []
    qos = ros.QoSProfile(depth=5, reliability=ros.ReliabilityPolicy.BEST_EFFORT)
    listener.create_subscription(image_type, 'large', got.append, qos)
    publisher = talker.create_publisher(image_type, 'large', qos)
    bench.spin_until(lambda: publisher.get_subscription_count() == 1)
    data = np.random.default_rng(0).bytes(1920 * 1080 * 3)
    publisher.publish(image_type(data=array.array('B', data)))
    bench.spin_until(lambda: got)
    assert bytes(got[0].data) == data


def test_incompatible_qos_is_told(bench, ros):
    talker, listener = bench.nodes
    told = []
    message_type = ros.message_type(STRING)
    listener.create_subscription(
        message_type,
        'strict',
        lambda m: None,
        ros.QoSProfile(depth=1),
        event_callbacks=ros.SubscriptionEventCallbacks(incompatible_qos=told.append),
    )
    qos = ros.QoSProfile(depth=1, reliability=ros.ReliabilityPolicy.BEST_EFFORT)
    talker.create_publisher(message_type, 'strict', qos)
    bench.spin_until(lambda: told)
    assert told[0].total_count == 1


def test_publishers_are_found_with_type_and_qos(bench, ros):
    talker, listener = bench.nodes
    assert len(listener.get_publishers_info_by_topic('/found')) == 0
    qos = ros.QoSProfile(
        depth=1,
        reliability=ros.ReliabilityPolicy.BEST_EFFORT,
        durability=ros.DurabilityPolicy.TRANSIENT_LOCAL,
    )
    publisher = talker.create_publisher(ros.message_type(STRING), 'found', qos)
    bench.spin_until(lambda: len(listener.get_publishers_info_by_topic('found')) == 1)
    (info,) = listener.get_publishers_info_by_topic('found')
    assert info.topic_type == STRING
    assert info.qos_profile.reliability == ros.ReliabilityPolicy.BEST_EFFORT
    assert info.qos_profile.durability == ros.DurabilityPolicy.TRANSIENT_LOCAL
    talker.destroy_publisher(publisher)
    bench.spin_until(lambda: len(listener.get_publishers_info_by_topic('found')) == 0)


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
    assert (profile.depth, profile.history.name) == (7, 'KEEP_ALL')
    assert profile.reliability == ros.ReliabilityPolicy.BEST_EFFORT
    node.destroy_node()


def test_a_qos_override_that_is_none_is_named(ros):
    overrides = [ros.Parameter('qos_overrides./over.publisher.reliability', value='sometimes')]
    node = ros.Node('overridden', parameter_overrides=overrides)
    options = ros.QoSOverridingOptions.with_default_policies()
    with pytest.raises(RuntimeError, match=r'reliability.*sometimes'):
        node.create_publisher(ros.message_type(STRING), 'over', 10, qos_overriding_options=options)
    node.destroy_node()


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


def test_log_lines_go_to_stderr_and_rosout(bench, ros, capfd):
    talker, listener = bench.nodes
    got = []
    log_type = ros.message_type('rcl_interfaces/msg/Log')
    qos = ros.QoSProfile(depth=10, durability=ros.DurabilityPolicy.TRANSIENT_LOCAL)
    listener.create_subscription(log_type, '/rosout', got.append, qos)
    talker.get_logger().warning('careful')
    talker.get_logger().debug('too much')
    bench.spin_until(lambda: got)
    assert (got[0].msg, got[0].level, got[0].name) == ('careful', 30, 'talker')
    printed = capfd.readouterr().err
    assert '[WARN]' in printed and '[talker]: careful' in printed and 'too much' not in printed


def test_destroying_twice_is_harmless(bench, ros):
    node = bench.nodes[0]
    publisher = node.create_publisher(ros.message_type(STRING), 'x', 5)
    subscription = node.create_subscription(ros.message_type(STRING), 'x', print, 5)
    assert node.destroy_publisher(publisher) and not node.destroy_publisher(publisher)
    assert node.destroy_subscription(subscription)
    assert not node.destroy_subscription(subscription)


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
    with pytest.raises(RuntimeError):  # not configured
        node.trigger_activate()
    assert node.trigger_configure() == failure and node.trigger_configure() == success
    assert not publisher.is_activated
    publisher.publish(text(ros, 'nobody hears this'))
    assert node.trigger_activate() == success and publisher.is_activated
    assert node.trigger_deactivate() == success and not publisher.is_activated
    assert node.trigger_cleanup() == ros.TransitionCallbackReturn.ERROR
    assert node.trigger_configure() == success  # the error was handled: unconfigured again
    assert node.trigger_shutdown() == success
    with pytest.raises(RuntimeError):
        node.trigger_configure()
    assert called == [('configure', 'unconfigured')] * 3
    node.destroy_node()
