"""The thread that owns the backend, without any ROS."""

import threading

import pytest

from handos_model.errors import UserError
from handos_ros.node import worker as worker_module
from handos_ros.node.diagnostics import Statistics
from handos_ros.node.worker import Worker

PATIENCE_S = 10.0


class Recorder:
    """Builds a worker over plain functions and collects what it publishes."""

    def __init__(self, process=lambda backend, frame: frame, load=lambda report: 'backend'):
        self.statistics = Statistics()
        self.published = []
        self.arrived = threading.Condition()
        self.worker = Worker(load, process, self.publish, self.statistics, watchdog_s=0.1)

    def publish(self, result):
        with self.arrived:
            self.published.append(result)
            self.arrived.notify_all()

    def wait(self, condition):
        with self.arrived:
            assert self.arrived.wait_for(condition, PATIENCE_S)


@pytest.fixture
def record():
    made = []

    def make(*args, **options):
        made.append(Recorder(*args, **options))
        return made[-1]

    yield make
    for recorder in made:
        recorder.worker.stop()


def poll(condition):
    done = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError('timed out')


def test_frames_come_out_in_the_thread_that_loaded(record):
    threads = []

    def load(report):
        threads.append(threading.current_thread())
        return 'backend'

    def process(backend, frame):
        threads.append(threading.current_thread())
        return backend, frame

    recorder = record(process, load)
    recorder.worker.submit(1)
    recorder.wait(lambda: recorder.published == [('backend', 1)])
    assert threads[0] is threads[1] is not threading.current_thread()


def test_the_newest_frame_waits_and_others_are_counted(record):
    gate = threading.Event()
    recorder = record(lambda backend, frame: gate.wait(PATIENCE_S) and frame)
    recorder.worker.submit(0)
    poll(lambda: recorder.worker._slot is None)  # the first one is being processed
    for frame in (1, 2, 3):
        recorder.worker.submit(frame)
    gate.set()
    recorder.wait(lambda: recorder.published == [0, 3])
    assert recorder.statistics.dropped == {'a newer image came': 2}
    poll(lambda: recorder.worker.idle)


def test_a_frame_may_come_to_nothing(record):
    recorder = record(lambda backend, frame: None if frame == 1 else frame)
    recorder.worker.submit(1)
    poll(lambda: recorder.worker.idle)
    recorder.worker.submit(2)
    recorder.wait(lambda: recorder.published)
    assert recorder.published == [2]


@pytest.mark.fault('backend', 'publishing raises', 'said; the next image is served')
def test_publishing_that_fails_does_not_end_the_thread(record):
    recorder = record()
    publish = recorder.worker._publish
    recorder.worker._publish = lambda result: 1 / 0
    recorder.worker.submit(1)
    poll(lambda: recorder.statistics.dropped['publishing failed'] == 1)
    assert 'ZeroDivisionError' in recorder.statistics.recent_problem('backend')
    poll(lambda: recorder.worker.idle)
    recorder.worker._publish = publish
    recorder.worker.submit(2)
    recorder.wait(lambda: recorder.published == [2])


def test_loading_tells_its_progress_and_its_failure(record):
    gate = threading.Event()

    def load(report):
        report('reading weights')
        gate.wait(PATIENCE_S)
        raise UserError('no such file')

    recorder = record(load=load)
    poll(lambda: recorder.worker.state.detail == 'reading weights')
    assert recorder.worker.state.state == 'loading' and recorder.worker.backend is None
    gate.set()
    poll(lambda: recorder.worker.state.state == 'failed')
    assert recorder.worker.state.detail == 'no such file'
    assert isinstance(recorder.worker.failure, UserError)


def test_loading_is_tried_again_unless_the_user_must_act(record, monkeypatch):
    monkeypatch.setattr(worker_module, 'RETRY_LOADING_S', 0.01)
    attempts = []

    def load(report):
        attempts.append(1)
        if len(attempts) < 3:
            raise MemoryError('the device is full')
        return 'backend'

    recorder = record(load=load)
    poll(lambda: recorder.worker.state.state == 'ready')
    assert len(attempts) == 3 and recorder.worker.failure is None


@pytest.mark.fault('backend', 'hangs again and again', 'at most three threads are given up; said')
def test_threads_that_hang_are_limited(record):
    gate = threading.Event()
    recorder = record(lambda backend, frame: gate.wait(PATIENCE_S) and frame)
    hanging = worker_module.MOST_HANGING
    for count in range(1, hanging + 1):
        recorder.worker.submit(count)
        poll(lambda: recorder.worker.watch() or recorder.worker._hanging)
        poll(lambda count=count: recorder.worker.watch() or len(recorder.worker._hanging) == count)
        poll(lambda: recorder.worker.state.state in ('ready', 'hanging'))
    recorder.worker.submit(99)
    poll(lambda: recorder.worker.watch() or 'restart the node' in recorder.worker.state.detail)
    assert len(recorder.worker._hanging) == hanging
    gate.set()  # the device comes back: the last frame's result counts, the others' do not
    recorder.wait(lambda: recorder.published)
    assert recorder.published == [99]
    poll(lambda: recorder.worker.state.state == 'ready')


def test_stopping_drops_the_waiting_frame_and_the_backend(record):
    recorder = record()
    recorder.worker.stop()
    assert recorder.worker.state.state == 'absent' and recorder.worker.backend is None
    assert not recorder.worker._thread.is_alive()
