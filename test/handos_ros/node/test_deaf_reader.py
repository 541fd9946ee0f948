"""A reader that goes deaf is noticed, said and made to hear again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from watched import PATIENCE_S, PROMISED_S, SMALL_FRAGMENTS, Watched

from handos_ros import runtime
from handos_ros.node.deaf_reader import DeafReader, Remedy

# The faults are put into Cyclone DDS as the embedded runtime holds it.
embedded_alone = pytest.mark.skipif(
    runtime.chosen_runtime() != 'embedded', reason='tests the embedded runtime'
)

TORN_S = 2.2  # so long, and a little, run_faulty_node.py loses packets


@pytest.fixture
def watched(ros: Any) -> Iterator[Watched]:
    made = Watched(ros, 1280, 720, 28.0, SMALL_FRAGMENTS)
    yield made
    made.close()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pass_time(reader: DeafReader, clock: Clock, seconds: float) -> list[Remedy]:
    """What is made anew in that time, while camera_info comes ten times a second."""
    remedies = []
    for _ in range(round(seconds * 10)):
        clock.now_s += 0.1
        reader.pulse()
        remedies.append(reader.next_remedy())
    return [remedy for remedy in remedies if remedy is not None]


def test_the_subscription_is_made_anew_first_then_the_participant(clock: Clock) -> None:
    reader = DeafReader(clock)
    both = [Remedy.SUBSCRIPTION, Remedy.PARTICIPANT]
    assert pass_time(reader, clock, 0.7) == []
    assert pass_time(reader, clock, 0.3) == both[:1]
    assert pass_time(reader, clock, 2.0) == both[1:]
    assert len(pass_time(reader, clock, 10.0)) in (3, 4)  # ever more rarely
    assert 2 < len(pass_time(reader, clock, 600.0)) < 24
    reader.heard()
    assert not reader.deaf and not reader.tried
    assert pass_time(reader, clock, 1.0) == both[:1]


def test_a_camera_that_stops_or_is_slow_is_not_taken_for_a_deaf_reader(clock: Clock) -> None:
    reader = DeafReader(clock)
    clock.now_s += 100.0
    assert not reader.deaf and reader.next_remedy() is None  # camera_info stopped as well
    for _ in range(20):  # an image and its camera_info every three seconds
        clock.now_s += 3.0
        reader.pulse()
        assert reader.next_remedy() is None
        reader.heard()


def test_what_was_tried_counts_in_the_next_participant_too(clock: Clock) -> None:
    reader = DeafReader(clock)
    assert len(pass_time(reader, clock, 3.0)) == 2
    reader.begin()
    assert pass_time(reader, clock, 0.7) == []
    assert pass_time(reader, clock, 2.0) == [Remedy.SUBSCRIPTION]


@pytest.mark.fault(
    'network', 'packets lost for two seconds: Cyclone DDS jams', 'said; subscribed anew'
)
@embedded_alone
def test_a_reader_that_torn_images_made_deaf_hears_again(watched: Watched) -> None:
    assert watched.hears()
    for _ in range(10):  # sixteen in a row must be torn, which is chance
        watched.node.send_signal(signal.SIGUSR1)
        watched.spin_for(TORN_S)
        if watched.said_so('image', 'deaf'):
            break
    assert watched.said_so('image', 'deaf')
    assert watched.hears(timeout_s=PROMISED_S), watched.said[-3:]
    assert int(watched.values['subscription made anew']) > 0


@pytest.mark.fault(
    'network', 'no image reaches the participant any more', 'said; a new participant'
)
@embedded_alone
def test_a_participant_that_is_deaf_is_made_anew(watched: Watched) -> None:
    assert watched.hears()
    watched.node.send_signal(signal.SIGUSR2)
    assert watched.says('image', 'deaf')
    assert watched.hears(timeout_s=PROMISED_S), watched.said[-3:]
    assert int(watched.values['participant made anew']) > 0
    watched.node.send_signal(signal.SIGINT)
    assert watched.node.wait(PATIENCE_S) == 0
