"""The node with a fake model: what goes in and out, and what can go wrong around it."""

import array
import gc
import time

import cv2
import numpy as np
import psutil
import pytest
from fakes import FakePerception, make_hand, sleeping
from rig import HEIGHT, NANOSECONDS, WIDTH, Rig, stamp_of, tracked

from handos_model.types import TrackState


def test_hands_carry_the_images_stamp_and_frame(rig):
    stamp_ns = rig.send()
    rig.spin_until(lambda: rig.outputs['hands'])
    message = rig.outputs['hands'][0]
    assert stamp_of(message) == stamp_ns and message.header.frame_id == 'camera_optical'
    assert [stamp_of(hand) for hand in message.hands] == [stamp_ns, stamp_ns]
    assert len(message.hands[0].vertices_m) == 778 * 3
    assert message.template_hash == 'abc'


def test_an_empty_image_gives_an_empty_array(rig):
    rig.perception.hands = []
    assert list(rig.send_and_wait().hands) == []


def test_topology_is_latched_for_a_late_joiner(rigs):
    rig = rigs(listen=('hands',))
    rig.send_and_wait()
    rig.spin_for(0.3)
    rig.listen('topology', '/handos/topology', 'handos/msg/HandTopology')
    rig.spin_until(lambda: rig.outputs['topology'])
    topology = rig.outputs['topology'][0]
    assert len(topology.triangles) == 1538 * 3 and topology.template_hash == 'abc'


def test_every_output(rigs):
    rig = rigs(listen=('hands', 'markers', 'detections', 'overlay', 'tf'))
    rig.spin_until(
        lambda: all(
            rig.node._configured.outputs._wanted(name)
            for name in rig.node._configured.outputs._publishers
        )
    )
    rig.send_and_wait()
    names = ('markers', 'detections', 'overlay', 'tf')
    rig.spin_until(lambda: all(rig.outputs[name] for name in names))
    assert len(rig.outputs['markers'][0].markers) == 7
    assert len(rig.outputs['detections'][0].detections) == 2
    overlay = rig.outputs['overlay'][0]
    assert np.any(np.asarray(overlay.data))  # the image sent is black
    assert (overlay.width, overlay.height, overlay.encoding) == (WIDTH, HEIGHT, 'rgb8')
    frames = [t.child_frame_id for t in rig.outputs['tf'][0].transforms]
    assert frames == ['camera_optical/hand_0', 'camera_optical/hand_1']


def test_nothing_is_computed_when_nobody_listens(rigs):
    rig = rigs(listen=())
    rig.send()
    rig.spin_until(lambda: rig.statistics.dropped['nobody subscribes'] == 1)
    assert rig.perception.calls == 0


def test_live_parameters_act_at_once_and_others_are_refused(rig, ros):
    rig.send_and_wait()
    results = rig.node.set_parameters([ros.Parameter('publish_vertices', value=False)])
    assert results[0].successful
    assert len(rig.send_and_wait().hands[0].vertices_m) == 0
    result = rig.node.set_parameters([ros.Parameter('max_hands', value=2)])[0]
    assert not result.successful and 'clean it up first' in result.reason
    assert rig.node.get_parameter('max_hands').value == 4


def test_the_mano_pose_is_published_when_asked_for(rig, ros):
    assert len(rig.send_and_wait().hands[0].theta) == 0
    rig.node.set_parameters([ros.Parameter('publish_theta', value=True)])
    assert np.allclose(rig.send_and_wait().hands[0].theta, np.arange(48) / 10)


def test_a_bad_parameter_stops_the_node_from_being_made(ros):
    with pytest.raises((ros.InvalidParameterValueException, ros.InvalidParameterTypeException)):
        Rig(ros, score_threshold=7.0, start=False)


def test_compressed_images(rigs):
    rig = rigs(image_transport='compressed')
    raw = cv2.imencode('.jpg', np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    message = rig.image_type(format='jpeg', data=array.array('B', raw))
    message.header.stamp.sec = 5
    rig.image.publish(message)
    rig.spin_until(lambda: rig.outputs['hands'])
    assert rig.perception.shapes[0] == (30, 40, 3)


def test_the_cameras_calibration_is_used(rig):
    rig.send_info()
    rig.spin_for(0.2)
    rig.send_and_wait()
    assert rig.perception.cameras[-1].calibrated
    assert rig.perception.cameras[-1].matrix_px[0, 0] == 50


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (None, 'no camera_info'),
        ({'k': np.zeros(9)}, 'not calibrated'),
        ({'k': np.full(9, np.nan)}, 'not calibrated'),
        ({'width': 640, 'height': 480}, 'camera_info is for 640x480'),
    ],
)
@pytest.mark.fault(
    'camera', 'calibration: {words}', 'hands come; distances are said to be guesses'
)
def test_a_missing_calibration_is_said_and_the_hands_come(rig, changes, words):
    if changes is not None:
        rig.send_info(**changes)
        rig.spin_for(0.2)
    rig.send_and_wait()
    assert not rig.perception.cameras[-1].calibrated
    assert words in rig.wait_for_status('calibration', words).message


def test_depth_of_the_same_stamp_is_used(rigs):
    rig = rigs(use_depth=True)
    image_type = rig.ros.message_type('sensor_msgs/msg/Image')
    depth = rig.probe.create_publisher(image_type, 'depth', rig.ros.QoSProfile(depth=5))
    rig.spin_until(lambda: depth.get_subscription_count() == 1)
    now_ns = time.time_ns()
    for offset_s, value in ((-1.0, 1), (0.005, 2), (1.0, 3)):
        pixels = array.array('B', np.full(WIDTH * HEIGHT, value * 1000, np.uint16).tobytes())
        message = image_type(
            width=WIDTH, height=HEIGHT, step=WIDTH * 2, encoding='16UC1', data=pixels
        )
        stamp_ns = now_ns + int(offset_s * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NANOSECONDS)
        depth.publish(message)
        rig.spin_for(0.05)
    rig.send_and_wait(stamp_ns=now_ns)
    assert np.all(rig.perception.depths[-1] == 2.0)


@pytest.mark.fault('camera', 'depth of another size, or none', 'said; hands come without it')
def test_depth_that_does_not_fit_is_said(rigs):
    rig = rigs(use_depth=True)
    rig.send_and_wait()
    assert rig.perception.depths[-1] is None
    rig.wait_for_status('depth', 'no depth image has the stamp')
    image_type = rig.ros.message_type('sensor_msgs/msg/Image')
    depth = rig.probe.create_publisher(image_type, 'depth', rig.ros.QoSProfile(depth=5))
    rig.spin_until(lambda: depth.get_subscription_count() == 1)
    stamp_ns = time.time_ns()
    pixels = array.array('B', bytes(8))
    message = image_type(width=2, height=2, step=4, encoding='16UC1', data=pixels)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NANOSECONDS)
    depth.publish(message)
    rig.spin_for(0.1)
    rig.send_and_wait(stamp_ns=stamp_ns)
    assert rig.perception.depths[-1] is None
    rig.wait_for_status('depth', 'depth is 2x2')


BAD_IMAGES = {
    'step too small': ({'step': 5}, 'step is 5'),
    'step too large': ({'step': WIDTH * 3 + 1}, 'data has'),
    'data short': ({'data': array.array('B', bytes(30))}, 'data has 30'),
    'data long': ({'data': array.array('B', bytes(WIDTH * HEIGHT * 3 + 1))}, 'data has'),
    'data empty': ({'data': array.array('B')}, 'data has 0'),
    'no size': ({'width': 0, 'height': 0}, 'empty image'),
    'huge': ({'width': 10_000, 'height': 10_000, 'step': 30_000}, 'above the limit'),
    'unknown encoding': ({'encoding': 'h264'}, "'h264' is not supported"),
    'big endian of the wrong length': (
        {'encoding': 'mono16', 'is_bigendian': 1, 'step': WIDTH * 2},
        'data has',
    ),
    'stamp zero': ({'stamp_ns': 0}, 'stamp is zero'),
    'stamp in the future': ({'stamp_ns': 2_000_000_000 * NANOSECONDS}, 'in the future'),
}


@pytest.mark.parametrize('name', BAD_IMAGES)
@pytest.mark.fault('camera', 'image: {name}', 'dropped and named; the next is served')
def test_a_bad_image_is_dropped_named_and_survived(rig, name):
    changes, words = BAD_IMAGES[name]
    rig.send_and_wait()
    rig.send(**changes)
    status = rig.wait_for_status('image', words)
    assert status.message.startswith('rejected') and status.level == type(status).ERROR
    good = rig.send_and_wait()
    assert len(tracked(good)) == 2
    assert len(rig.outputs['hands']) == 2
    rig.spin_until(rig.accounted)


def test_diagnostics_come_at_least_every_second(rig):
    assert 0 < rig.node.get_parameter('diagnostics_period_s').value <= 1.0
    before = len(rig.outputs['diagnostics'])
    rig.spin_for(1.2)
    assert len(rig.outputs['diagnostics']) > before


@pytest.mark.fault(
    'camera', 'a stamp that comes again, or goes back', 'dropped and named; tracks begin anew'
)
def test_a_stamp_that_comes_again_or_goes_back(rig):
    stamp_ns = stamp_of(rig.send_and_wait())
    rig.send(stamp_ns=stamp_ns)
    rig.wait_for_status('image', 'that of the last image')
    rig.send(stamp_ns=stamp_ns - 60 * NANOSECONDS)
    rig.wait_for_status('image', 'went back by 60.000 s')
    good = rig.send_and_wait(stamp_ns=stamp_ns - 59 * NANOSECONDS)
    assert stamp_of(good) == stamp_ns - 59 * NANOSECONDS
    states = {hand.id: hand.state for hand in good.hands}
    lost, new = TrackState.LOST, TrackState.TRACKED
    assert states == {0: lost, 1: lost, 2: new, 3: new}
    rig.spin_until(rig.accounted)


@pytest.mark.parametrize('kind', ['truncated', 'bomb', 'text'])
@pytest.mark.fault('camera', 'compressed image: {kind}', 'dropped and named; the next is served')
def test_a_bad_file_is_dropped_named_and_survived(rigs, kind):
    rig = rigs(image_transport='compressed')
    good = cv2.imencode('.jpg', np.zeros((30, 40, 3), np.uint8))[1].tobytes()
    bomb = bytearray(good)
    at = bomb.index(b'\xff\xc0')
    bomb[at + 5 : at + 9] = b'\xff\xff\xff\xff'
    raw, words = {
        'truncated': (good[:-20], 'cut off'),
        'bomb': (bytes(bomb), 'above the limit'),
        'text': (b'no image', 'neither JPEG nor PNG'),
    }[kind]
    for stamp, data in ((5, raw), (6, good)):
        message = rig.image_type(format='jpeg', data=array.array('B', data))
        message.header.stamp.sec = stamp
        rig.image.publish(message)
        if data is raw:
            rig.wait_for_status('image', words)
    rig.spin_until(lambda: rig.outputs['hands'])
    assert rig.outputs['hands'][0].header.stamp.sec == 6


def test_hands_that_vanish_are_said_lost_once(rig):
    stamp_ns = stamp_of(rig.send_and_wait())
    rig.perception.hands = [make_hand(0)]
    said = []
    for _ in range(6):
        stamp_ns += NANOSECONDS * 9 // 100  # coasts for 0.4 s
        said.append({hand.id: hand.state for hand in rig.send_and_wait(stamp_ns=stamp_ns).hands})
    assert all(states[0] == TrackState.TRACKED for states in said)
    unseen = [TrackState.COASTING] * 4 + [TrackState.LOST]
    assert [states[1] for states in said if 1 in states] == unseen


@pytest.mark.fault('camera', 'stops and returns', 'hands said lost once; hands again')
def test_a_camera_that_stops_and_returns(rigs):
    rig = rigs(stale_after_s=0.3, diagnostics_period_s=0.1)
    stamp_ns = stamp_of(rig.send_and_wait())
    rig.spin_until(lambda: len(rig.outputs['hands']) == 2)
    lost = rig.outputs['hands'][1]
    assert [hand.state for hand in lost.hands] == [TrackState.LOST] * 2
    assert stamp_of(lost) == stamp_ns
    rig.wait_for_status('image', 'the camera has stopped')
    rig.spin_for(0.5)
    assert len(rig.outputs['hands']) == 2  # lost hands are said once
    back = rig.send_and_wait()
    assert [hand.state for hand in back.hands] == [TrackState.TRACKED] * 2
    rig.wait_for_status('image', 'images arrive')


def test_why_nothing_arrives_is_found_in_the_graph(rigs):
    rig = rigs(image_transport='raw')
    silent = rig.wait_for_status('image', 'has a publisher but no image')
    assert silent.message.startswith('waiting')
    rig.probe.destroy_publisher(rig.image)
    absent = rig.wait_for_status('image', 'nobody publishes /image')
    assert absent.message.startswith('waiting')


@pytest.mark.fault('network', 'a QoS that does not match', 'said with the parameter to set')
def test_a_qos_that_does_not_match_is_named(rigs, ros):
    override = 'qos_overrides./image.subscription.reliability'
    rig = rigs(start=False, **{override: 'reliable'})
    rig.probe.destroy_publisher(rig.image)
    best_effort = ros.QoSProfile(depth=1, reliability=ros.ReliabilityPolicy.BEST_EFFORT)
    rig.image = rig.probe.create_publisher(rig.image_type, 'image', best_effort)
    rig.node.trigger_configure()
    rig.node.trigger_activate()
    status = rig.wait_for_status('image', override)
    assert 'offers a QoS that does not match' in status.message


@pytest.mark.fault(
    'process', 'four times the images it can process', 'old ones dropped and counted; ages bounded'
)
def test_overload_drops_frames_and_keeps_them_young(rigs):
    service_s = 0.08
    rig = rigs(FakePerception(before=sleeping(service_s)))
    sent = 60
    for _ in range(sent):
        rig.send()
        rig.spin_for(service_s / 4)
    rig.spin_until(rig.accounted)
    dropped = rig.statistics.dropped['a newer image came']
    assert rig.statistics.received == sent and dropped > sent / 2
    waits_s = rig.statistics._stages_s['waiting']
    services_s = rig.statistics._stages_s['inferring']
    # A frame waits for at most the one that is being processed: age <= 2 service times.
    assert max(waits_s) <= max(services_s) + 0.05
    assert len(rig.outputs['hands']) == rig.statistics.processed


def test_several_cameras_by_namespace(ros):
    from handos_ros.node.hand_node import HandNode

    nodes = [
        HandNode(lambda settings, report: FakePerception(), namespace=name)
        for name in ('left', 'right')
    ]
    assert [node.resolve_topic_name('image') for node in nodes] == ['/left/image', '/right/image']
    assert nodes[0].resolve_topic_name('~/hands') == '/left/handos/hands'
    for node in nodes:
        node.destroy_node()


def cycle(rig, times):
    success = rig.ros.TransitionCallbackReturn.SUCCESS
    for _ in range(times):
        for name in ('configure', 'activate', 'deactivate', 'cleanup'):
            assert getattr(rig.node, f'trigger_{name}')() == success
        rig.executor.spin_once(timeout_sec=0)


def resources() -> tuple[int, int, int]:
    gc.collect()
    process = psutil.Process()
    return process.num_threads(), process.num_fds(), process.memory_info().rss


def check_cycles(rig, times):
    cycle(rig, 20)
    threads, files, memory = resources()
    cycle(rig, times)
    threads_after, files_after, memory_after = resources()
    assert threads_after <= threads and files_after <= files
    assert memory_after - memory < 1e6 + 2e3 * times  # bytes; one publisher is more than 2e3
    rig.start()
    assert len(tracked(rig.send_and_wait())) == 2


def test_lifecycle_cycles_leave_nothing_behind(rigs):
    check_cycles(rigs(start=False), 50)


@pytest.mark.long
def test_a_thousand_lifecycle_cycles_leave_nothing_behind(rigs):
    check_cycles(rigs(start=False), 1000)


def test_deactivate_stops_the_flow_and_activate_starts_it_again(rig):
    rig.send_and_wait()
    rig.node.trigger_deactivate()
    rig.spin_until(lambda: rig.image.get_subscription_count() == 0)
    rig.send()
    rig.spin_for(0.3)
    assert rig.perception.calls == 1
    rig.wait_for_status('image', 'inactive')
    rig.node.trigger_activate()
    rig.spin_until(rig.connected)
    assert len(tracked(rig.send_and_wait())) == 2
