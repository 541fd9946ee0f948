"""What is wrong, why, and what to do about it."""

import threading

import pytest

from handos_ros.node.diagnostics import (
    BackendState,
    InputState,
    Level,
    Statistics,
    diagnose,
    statuses_to_message,
)

READY = BackendState('ready', '')
IMAGE = 'sensor_msgs/msg/Image'


class FakeClock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def statistics(clock):
    return Statistics(clock)


def input_state(**changes):
    values = {
        'topic': '/image',
        'active': True,
        'publishers': 1,
        'qos_mismatch': False,
        'offered_types': (IMAGE,),
        'wanted_type': IMAGE,
        'stale_after_s': 1.0,
    }
    return InputState(**{**values, **changes})


def status(statistics, name, state=None, backend=READY):
    return {s.name: s for s in diagnose(statistics, state or input_state(), backend)}[name]


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'publishers': 0, 'offered_types': ()}, 'nobody publishes /image: start the camera'),
        ({'offered_types': ('sensor_msgs/msg/CompressedImage',)}, 'image_transport'),
        ({'qos_mismatch': True}, 'qos_overrides./image.subscription.reliability'),
        ({}, 'has a publisher but no image has arrived'),
    ],
)
def test_why_nothing_arrives(statistics, changes, words):
    got = status(statistics, 'image', input_state(**changes))
    assert got.level == Level.WARN and words in got.message and got.message.startswith('waiting')


def test_an_image_stream_that_stops_is_stale(statistics, clock):
    statistics.frame_received()
    assert status(statistics, 'image').level == Level.OK
    clock.now_s += 1.5
    got = status(statistics, 'image')
    assert got.level == Level.WARN and 'no image for 1.5 s' in got.message
    statistics.frame_received()
    assert status(statistics, 'image').level == Level.OK


def test_an_inactive_node_says_so(statistics):
    assert 'activate' in status(statistics, 'image', input_state(active=False)).message


def test_a_problem_is_shown_and_fades(statistics, clock):
    statistics.frame_received()
    statistics.problem('input', 'step is wrong')
    clock.now_s += 0.9
    got = status(statistics, 'image')
    assert got.level == Level.ERROR and got.message == 'rejected: step is wrong'
    clock.now_s += 5
    statistics.frame_received()
    assert status(statistics, 'image').level == Level.OK


@pytest.mark.parametrize('topic', ['calibration', 'depth'])
def test_calibration_and_depth(statistics, topic):
    assert status(statistics, topic).level == Level.OK
    statistics.problem(topic, 'it is missing')
    assert status(statistics, topic).level == Level.WARN
    assert status(statistics, topic).message == 'it is missing'


@pytest.mark.parametrize(
    ('state', 'level'),
    [('loading', Level.WARN), ('failed', Level.ERROR), ('hanging', Level.ERROR)],
)
def test_backend_states(statistics, state, level):
    got = status(statistics, 'backend', backend=BackendState(state, 'detail'))
    assert got.level == level and got.message == f'{state}: detail'


def test_a_backend_that_raised_is_an_error_while_it_is_recent(statistics, clock):
    statistics.problem('backend', 'it raised')
    assert status(statistics, 'backend').level == Level.ERROR
    clock.now_s += 5
    assert status(statistics, 'backend').level == Level.OK


def test_counts_rates_and_percentiles(statistics, clock):
    for index in range(60):
        clock.now_s += 1 / 30
        statistics.frame_received()
        if index % 3 == 0:
            statistics.frame_dropped('a newer image came')
        else:
            statistics.frame_processed({'age': 0.020})
    values = status(statistics, 'frames').values
    assert values['frames received'] == '60' and values['frames processed'] == '40'
    assert values['dropped: a newer image came'] == '20'
    assert float(values['input rate [Hz]']) == pytest.approx(30, abs=1)
    assert float(values['output rate [Hz]']) == pytest.approx(20, abs=1)
    assert values['age p50/p95/p99 [ms]'] == '20.0 / 20.0 / 20.0'


def test_counts_are_right_from_many_threads(statistics):
    def work():
        for _ in range(500):
            statistics.frame_received()
            statistics.frame_dropped('x')
            statistics.frame_processed({'age': 0.1})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statistics.received, statistics.processed, statistics.dropped['x']) == (4000,) * 3


def test_message(messages, statistics):
    statistics.problem('calibration', 'no camera_info')
    stamp = messages('builtin_interfaces/msg/Time')(sec=5)
    statuses = diagnose(statistics, input_state(), READY)
    message = statuses_to_message(messages, stamp, '/left/handos', statuses)
    assert message.header.stamp.sec == 5 and message.status[0].hardware_id == '/left/handos'
    levels = {s.name: s.level for s in message.status}
    assert levels['handos: calibration'] == messages('diagnostic_msgs/msg/DiagnosticStatus').WARN
    from handos_ros.runtime.embedded.wire import cdr

    raw = bytes(cdr.serialize(messages.store, message))
    assert cdr.deserialize(messages.store, raw, message.__msgtype__) == message
