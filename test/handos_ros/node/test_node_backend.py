"""The node with a fake model that fails, hangs, loads for long or cannot be loaded."""

import threading

import pytest
from fakes import FakePerception
from rig import NANOSECONDS, tracked

from handos_model.errors import UserError
from handos_model.types import TrackState
from handos_ros.node.deaf_reader import PULSES, SILENCE_S, DeafReader, Remedy


@pytest.mark.fault('backend', 'raises, as out of memory does', 'said; the next image is served')
def test_a_backend_that_raises_is_named_and_survived(rig):
    def fail():
        raise RuntimeError('out of memory')

    rig.send_and_wait()
    rig.perception.before = fail
    rig.send()
    rig.wait_for_status('backend', 'out of memory')
    rig.perception.before = lambda: None
    assert len(tracked(rig.send_and_wait())) == 2
    assert rig.statistics.dropped['backend failed'] == 1
    rig.spin_until(rig.accounted)


@pytest.mark.fault('backend', 'keeps raising', 'built anew')
def test_a_backend_that_keeps_failing_is_built_anew(rigs):
    built = []

    def factory(settings, report):
        broken = FakePerception(before=lambda: 1 / 0)
        built.append(FakePerception() if built else broken)
        return built[-1]

    rig = rigs(factory=factory)
    for _ in range(20):
        rig.send()
        rig.spin_for(0.05)
        if len(built) == 2:
            break
    rig.spin_until(lambda: rig.node._configured.worker.state.state == 'ready')
    assert len(tracked(rig.send_and_wait())) == 2 and len(built) == 2


@pytest.mark.fault('backend', 'hangs', 'said, replaced by a new one')
def test_a_backend_that_hangs_is_replaced(rigs):
    release = threading.Event()
    built = []

    def factory(settings, report):
        hangs = not built
        before = (lambda: release.wait(30)) if hangs else (lambda: None)
        built.append(FakePerception(before=before))
        return built[-1]

    rig = rigs(factory=factory, watchdog_s=0.3)
    rig.send()
    status = rig.wait_for_status('backend', 'more than 0.3 s')
    assert status.level == type(status).ERROR
    rig.spin_until(lambda: rig.node._configured.worker.state.state == 'ready' and len(built) == 2)
    after = rig.send_and_wait()
    release.set()  # what the old one returns now is thrown away
    rig.spin_for(0.3)
    assert rig.outputs['hands'] == [after] and rig.statistics.dropped['backend hung'] == 1
    rig.spin_until(rig.accounted)


def test_the_default_watchdog_is_two_seconds(rig):
    assert rig.node.get_parameter('watchdog_s').value == 2.0


@pytest.mark.fault('backend', 'returns NaN', 'that hand is left out; said')
def test_hands_left_out_for_nan_are_said(rig):
    rig.perception.not_finite = 1
    rig.send_and_wait()
    status = rig.wait_for_status('backend', 'NaN')
    assert status.level != type(status).OK


def test_tracks_outlive_a_backend(rigs):
    def factory(settings, report):
        return FakePerception(before=fail_when_told)

    failing = threading.Event()

    def fail_when_told():
        if failing.is_set():
            raise RuntimeError

    rig = rigs(factory=factory)
    stamp_ns = rig.send()
    rig.spin_until(lambda: rig.outputs['hands'])
    assert {hand.id for hand in rig.outputs['hands'][0].hands} == {0, 1}
    failing.set()
    first = rig.node._configured.worker.backend
    while rig.node._configured.worker.backend is first:
        stamp_ns += NANOSECONDS // 100
        rig.send(stamp_ns=stamp_ns)
        rig.spin_for(0.05)
    failing.clear()
    same = rig.send_and_wait(stamp_ns=stamp_ns + NANOSECONDS // 30).hands
    assert {hand.id: hand.state for hand in same} == {0: TrackState.TRACKED, 1: TrackState.TRACKED}


def test_loading_is_reported_and_does_not_block(rigs):
    release = threading.Event()

    def factory(settings, report):
        report('building an engine')
        release.wait(60)
        return FakePerception()

    rig = rigs(factory=factory, start=False)
    rig.node.trigger_configure()
    rig.node.trigger_activate()
    rig.wait_for_status('backend', 'loading: building an engine')
    rig.spin_until(rig.connected)
    rig.send()
    rig.spin_until(lambda: rig.statistics.dropped['backend loading'] == 1)
    release.set()
    rig.spin_until(lambda: rig.node._configured.worker.state.state == 'ready')
    assert len(tracked(rig.send_and_wait())) == 2
    rig.spin_until(rig.accounted)


def test_what_loads_is_not_lost_to_a_participant_that_is_made_anew(rigs):
    loaded = threading.Event()
    now_s = [0.0]

    def factory(settings, report):
        assert loaded.wait(20)
        return FakePerception()

    rig = rigs(factory=factory, start=False)
    reader = DeafReader(lambda: now_s[0], (Remedy.PARTICIPANT,))
    rig.node._image_reader = reader
    rig.node.trigger_configure()
    rig.node.trigger_activate()
    rig.spin_until(lambda: rig.image.get_subscription_count() > 0)
    for _ in range(PULSES):
        reader.pulse()
    now_s[0] += 2 * SILENCE_S
    rig.spin_for(0.5)
    assert reader.deaf and not rig.node.wants_participant
    loaded.set()
    rig.spin_until(lambda: rig.node.wants_participant)
    reader.heard()
    assert not rig.node.wants_participant


@pytest.mark.fault('backend', 'weights that cannot be loaded', 'said')
def test_weights_that_cannot_be_loaded_are_named(rigs):
    def factory(settings, report):
        raise UserError('no weights at nowhere')

    rig = rigs(factory=factory)
    status = rig.wait_for_status('backend', 'failed: no weights at nowhere')
    assert status.level == type(status).ERROR and isinstance(rig.node.failure, UserError)
